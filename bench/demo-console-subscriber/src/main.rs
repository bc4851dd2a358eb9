//! `bench-demo-console-subscriber FAULTS PORT`: the demo's service as a child process, with console-subscriber as its
//! documentation says to start it.

use std::process::ExitCode;

use console_subscriber::ConsoleLayer;
use taskscope_demo::{Options, serve_on};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(Ok(faults)), Some(Ok(port)), None) =
        (args.next().map(|faults| faults.parse()), args.next().map(|port| port.parse::<u16>()), args.next())
    else {
        eprintln!("error: not FAULTS PORT\nhint: `bench-demo-console-subscriber stuck-poll 6669`");
        return ExitCode::from(64);
    };
    let options = Options { faults, until_stdin_closes: true, ..Options::default() };
    let served = serve_on(options, move |mut builder| {
        ConsoleLayer::builder().server_addr(([127, 0, 0, 1], port)).init();
        builder.build()
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
