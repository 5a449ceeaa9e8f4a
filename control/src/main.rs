//! The `ringmain` binary: reads the configuration, sets up logs and allocator, and hands over to the library.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

use ringmain_control::app::log::LogFile;
use ringmain_control::app::planes::Embedded;
use ringmain_control::app::run;
use ringmain_control::config::{self, Invocation, Loaded, LogFormat, Sources};
use ringmain_control::{load, turn};
use tracing_subscriber::fmt::writer::BoxMakeWriter;

// Steadier memory than the system's allocator under many joins. The packet path allocates nothing either way.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match begin() {
        Ok(code) => code,
        Err(error) => match error.downcast::<clap::Error>() {
            // `--help` and `--version` are errors to clap, and success to everyone else.
            Ok(error) => {
                let _ = error.print();
                ExitCode::from(error.exit_code().clamp(0, 255) as u8)
            }
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "ringmain: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn begin() -> anyhow::Result<ExitCode> {
    let environment =
        std::env::vars_os().filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)));
    match config::read(std::env::args_os(), environment)? {
        Invocation::ShowConfig(sources) => {
            let loaded = config::load(&sources)?;
            loaded.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            // A closed pipe (`ringmain config | head`) is no failure.
            let _ = std::io::stdout().write_all(loaded.to_toml().as_bytes());
            Ok(ExitCode::SUCCESS)
        }
        Invocation::Run(sources) => run(&sources).map(|()| ExitCode::SUCCESS),
        Invocation::TurnCredentials(sources, options) => {
            turn::print_credential(&config::load(&sources)?.config, &options).map(|()| ExitCode::SUCCESS)
        }
        Invocation::Admin(sources, options) => {
            turn::ask(&config::load(&sources)?.config, &options).map(|()| ExitCode::SUCCESS)
        }
        // What it found wrong it has printed.
        Invocation::Load(options) => {
            load::run(&options).map(|passed| if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

fn run(sources: &Sources) -> anyhow::Result<()> {
    let Loaded { config, warnings, .. } = config::load(sources)?;
    let log_file = start_logs(&config.log)?;
    tracing::info!("Ringmain {}", env!("CARGO_PKG_VERSION"));
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let file = sources.file.as_ref().or(sources.coturn.as_ref()).map(|(name, _)| name.as_str());
    turn::warnings(&config, file).iter().for_each(|warning| tracing::warn!("{warning}"));
    // Signalling needs little, and the cores belong to the workers. This thread stays as it is: they start from here.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("ringmain-control")
        .on_thread_start(ringmain_dataplane::io::give_way)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        if let Some(file) = log_file {
            tokio::spawn(async move {
                if let Err(error) = file.follow_hangups().await {
                    tracing::error!("the log file is not opened anew at SIGHUP: {error}");
                }
            });
        }
        run::run(config, Embedded).await
    })
}

/// Lines are written from here on. The file that they go to, if it is one.
fn start_logs(log: &config::Log) -> anyhow::Result<Option<Arc<LogFile>>> {
    let filter = tracing_subscriber::EnvFilter::builder().parse(&log.filter)?;
    let file = log.file.as_ref().and_then(|path| {
        let failed = |error| eprintln!("warning: logs go here, because {} cannot be written: {error}", path.display());
        LogFile::open(path).map_err(failed).ok()
    });
    let is_terminal = file.is_none() && std::io::stderr().is_terminal();
    let writer = match &file {
        Some(file) => BoxMakeWriter::new(file.clone()),
        None => BoxMakeWriter::new(std::io::stderr),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let result = match log.format {
        LogFormat::Text => builder.with_ansi(is_terminal).with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    result.map_err(anyhow::Error::msg)?;
    Ok(file)
}

/// Threads of signalling: one for the rooms, one for sockets and TLS.
const CONTROL_THREADS: usize = 2;
