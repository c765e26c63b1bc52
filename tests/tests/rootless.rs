//! Everything that can be shown without root, without the eBPF toolchain and without a network beyond loopback.

mod rootless {
    mod access_log;
    mod admit;
    mod agreement;
    mod answers;
    mod attacks;
    mod bodies;
    mod borders;
    mod budgets;
    mod captures;
    mod clients;
    mod config_routes;
    mod configs;
    mod control;
    mod corpus;
    mod edge;
    mod flights;
    mod floods;
    mod graphql;
    mod grpc;
    mod introspection;
    mod issuer_keys;
    mod known_tokens;
    mod ledger;
    mod ledger_room;
    mod oauth;
    mod packets;
    mod policy_files;
    mod proxies;
    mod refusals;
    mod revocation;
    mod route_limits;
    mod routes;
    mod smuggling;
    mod streams;
    mod tickets;
    mod tls;
    mod token_checklist;
    mod token_command;
    mod token_forms;
    mod upgrades;
    mod upstreams;
    mod wire;
}
