//! x
pub(crate) fn command() -> anyhow::Result<()> {
    Ok(())
}
