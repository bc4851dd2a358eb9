//! `#[taskscope_probe::main]` takes what `#[tokio::main]` takes. Each function here is one that the latter compiles.

use std::process::{ExitCode, Termination};

#[taskscope_probe::main(flavor = "current_thread")]
async fn with_arguments(port: u16, host: &str) -> String {
    format!("{host}:{port}")
}

#[taskscope_probe::main(worker_threads = 1)]
async fn that_may_fail(fail: bool) -> Result<u8, std::num::ParseIntError> {
    let number = if fail { "x" } else { "7" }.parse()?;
    Ok(number)
}

#[taskscope_probe::main(flavor = "current_thread")]
async fn with_an_opaque_result() -> impl Termination {
    ExitCode::SUCCESS
}

#[taskscope_probe::main(flavor = "current_thread")]
async fn that_never_returns() -> ! {
    panic!("it does not")
}

#[taskscope_probe::main(flavor = "current_thread")]
async fn with_inner_attributes() -> u8 {
    #![allow(unused_variables)]
    let unused = 1;
    2
}

fn runtime() -> u8 {
    3
}

fn builder() -> u8 {
    4
}

#[taskscope_probe::main(flavor = "current_thread")]
async fn with_names_like_the_attributes_own() -> u8 {
    let body = runtime();
    let installed = builder();
    body + installed
}

#[taskscope_probe::main(flavor = "multi_thread", worker_threads = 1, name = "named", crate = "tokio")]
async fn with_every_argument() -> Option<String> {
    tokio::runtime::Handle::current().name().map(str::to_owned)
}

#[test]
fn what_tokio_main_takes_is_taken() {
    assert_eq!(with_arguments(80, "localhost"), "localhost:80");
    assert_eq!((that_may_fail(false), that_may_fail(true).is_err()), (Ok(7), true));
    assert_eq!(with_inner_attributes(), 2);
    assert_eq!(with_names_like_the_attributes_own(), 7);
    assert_eq!(with_every_argument().as_deref(), Some("named"));
    let _: ExitCode = with_an_opaque_result().report();
    assert!(std::panic::catch_unwind(|| that_never_returns()).is_err());
}
