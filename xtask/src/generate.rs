//! Turns `proto/proto/**/*.proto` into the committed Rust of `proto/src/generated`, without a system `protoc`.

use std::path::Path;

use anyhow::Context;

const FILES: [&str; 4] = [
    "taskscope/v1/introspect.proto",
    "taskscope/v1/tasks.proto",
    "taskscope/v1/runtime.proto",
    "taskscope/v1/alerts.proto",
];

/// Writes `taskscope.v1.rs` into `out`.
pub(crate) fn generate(root: &Path, out: &Path) -> anyhow::Result<()> {
    let includes = root.join("proto/proto");
    let descriptors = protox::compile(FILES, [&includes]).context("the .proto files do not compile")?;
    tonic_prost_build::configure()
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        // The same bytes, which it leaves as they are.
        .extern_path(".taskscope.v1.Histogram", "crate::histogram::Packed")
        .emit_rerun_if_changed(false)
        .out_dir(out)
        .compile_fds(descriptors)
        .context("cannot generate code from the .proto files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_code_is_what_the_proto_files_generate() {
        let root = crate::root();
        let out = tempfile::tempdir().expect("a temporary folder can be made");
        generate(&root, out.path()).expect("the .proto files compile");
        let fresh = std::fs::read_to_string(out.path().join("taskscope.v1.rs")).expect("it was just written");
        let committed = std::fs::read_to_string(root.join("proto/src/generated/taskscope.v1.rs"))
            .expect("generated code is committed");
        assert!(fresh == committed, "proto/src/generated is stale; hint: run `cargo xtask generate`");
    }
}
