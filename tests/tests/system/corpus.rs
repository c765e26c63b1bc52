//! The corpus of the fuzz targets through the loaded program: it must judge as plain memory does.

use enforcer::clock::kernel_now;
use enforcer_common::verdict::decide;
use enforcer_tests::{
    fuzz::{self, corpus},
    memory::carry_out,
    tables::State,
};

use super::packets::{Loaded, SHORTEST};

#[test]
fn the_kernel_judges_the_corpus_as_plain_memory_does() {
    let mut loaded = Loaded::new();
    let of_frames = corpus::kept("decide").into_iter().filter_map(fuzz::frames);
    let of_streams =
        corpus::kept("automaton").into_iter().map(|input| (State::default(), fuzz::frames_of_stream(input)));
    let (mut judged, mut wrong) = (0, Vec::new());
    for (number, (state, frames)) in of_frames.chain(of_streams).enumerate() {
        loaded.fill(&state);
        let tables = state.tables(kernel_now().0);
        for (at, frame) in frames.iter().enumerate().filter(|(_, frame)| frame.len() >= SHORTEST) {
            let found = loaded.judge(frame);
            let verdict = decide(&&**frame, &tables);
            let (action, left) = carry_out(frame, verdict, &tables.take_answer());
            judged += 1;
            if found != Ok((verdict, action, left)) {
                wrong.push(format!("input {number}, frame {at}: {found:?}, in plain memory {verdict:?}"));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {judged} frames:\n{}", wrong.len(), wrong.join("\n"));
    assert!(judged > 200, "{judged} frames");
}
