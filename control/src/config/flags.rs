//! The command line: `clap` built from the table of settings, so that help, flags and environment cannot drift apart.

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Command, Parser};

use super::keys::{KEYS, PREFIX};
use super::load::Sources;
use crate::{load, turn};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// Run both planes.
    Run(Sources),
    /// Print the effective configuration.
    ShowConfig(Sources),
    /// Load a server.
    Load(Box<load::Options>),
    /// Print a time-limited credential of TURN.
    TurnCredentials(Sources, turn::CredentialOptions),
    /// Ask a running server something.
    Admin(Sources, turn::AdminOptions),
}

/// Reads command line, environment and the file they name.
///
/// Fails with clap's error (which for `--help` and `--version` is their text) or with the file's.
pub fn read(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> anyhow::Result<Invocation> {
    let mut arguments = arguments.into_iter().peekable();
    let program = arguments.next();
    // A client has nothing to do with the server's settings, so it has a command line of its own.
    if arguments.next_if(|argument| argument == LOAD).is_some() {
        return Ok(Invocation::Load(Box::new(load::Options::try_parse_from(program.into_iter().chain(arguments))?)));
    }
    let arguments = program.into_iter().chain(arguments);
    let matches = command().try_get_matches_from(arguments.map(ion_flag))?;
    let environment: Vec<(String, String)> =
        environment.into_iter().filter(|(variable, _)| variable.starts_with(PREFIX)).collect();
    let variable = environment.iter().find(|(variable, text)| variable == CONFIG_VARIABLE && !text.is_empty());
    let name = chosen::<String>(&matches, "config").cloned().or_else(|| variable.map(|(_, text)| text.clone()));
    let file = match name {
        Some(name) => match std::fs::read_to_string(&name) {
            Ok(text) => Some((name, text)),
            Err(error) => anyhow::bail!("cannot read the configuration file {name}: {error}"),
        },
        None => None,
    };
    let given = |flag: &str| {
        let values: Vec<String> = all(&matches, flag);
        (!values.is_empty()).then(|| (flag.to_string(), values.join(",")))
    };
    let flags = KEYS.iter().filter_map(|key| given(key.flag)).collect();
    let cpu_count = std::thread::available_parallelism().map_or(1, |count| count.get().min(1024) as u16);
    let (subcommand, inner) = matches.subcommand().unwrap_or(("", &matches));
    let text_of = |name: &str| inner.get_one::<String>(name).cloned();
    let mut sources = Sources { file, environment, flags, cpu_count, ..Sources::default() };
    Ok(match Some(subcommand).filter(|name| !name.is_empty()) {
        Some("config") => Invocation::ShowConfig(sources),
        Some("turn") => {
            if let Some(name) = text_of("coturn-config") {
                if sources.file.is_some() {
                    anyhow::bail!("--config and --coturn-config both name a file of settings; keep one of them");
                }
                let text = std::fs::read_to_string(&name);
                let text = text.map_err(|error| anyhow::anyhow!("cannot read coturn's file {name}: {error}"))?;
                sources.coturn = Some((name, text));
            }
            sources.turn_only = true;
            Invocation::Run(sources)
        }
        Some("turn-credentials") => {
            let options = turn::CredentialOptions {
                user: text_of("user").unwrap_or_default(),
                lifetime_s: inner.get_one::<u64>("lifetime").copied().unwrap_or(turn::CREDENTIAL_LIFETIME_S),
                json: inner.get_flag("json"),
                oauth: inner.get_flag("oauth"),
            };
            Invocation::TurnCredentials(sources, options)
        }
        Some("admin") => {
            let words = inner.get_many::<String>("order").into_iter().flatten().cloned().collect();
            Invocation::Admin(sources, turn::AdminOptions { words })
        }
        Some(LOAD) => anyhow::bail!(
            "`ringmain {LOAD}` is a client and takes no settings of the server; see `ringmain {LOAD} --help`"
        ),
        _ => Invocation::Run(sources),
    })
}

/// The command line as `clap` knows it.
pub fn command() -> Command {
    let config = Arg::new("config").long("config").short('c').value_name("FILE").global(true).help(format!(
        "Read settings from a TOML file; ion-sfu's config.toml is understood too [env: {CONFIG_VARIABLE}]"
    ));
    let settings = KEYS.iter().map(|key| {
        let heading = match key.section() {
            "" => "Network",
            "tls" => "HTTPS",
            "media" => "Media",
            "audio" => "Who is speaking",
            "limits" => "Limits",
            "websocket" => "Signalling connections",
            "turn" => "TURN",
            _ => "Logs",
        };
        let default = (key.show)(&super::Config::default());
        // Nothing and no list mean what the help says of "empty".
        let default = match default.trim_matches('"') {
            "" | "[]" => String::new(),
            value => format!(" [default: {value}]"),
        };
        let arg = Arg::new(key.flag)
            .long(key.flag)
            .value_name(key.placeholder)
            .global(true)
            .help_heading(heading)
            .help(format!("{}{default} [env: {}]", key.doc, key.variable()));
        let arg = match key.short {
            Some(short) => arg.short(short),
            None => arg,
        };
        match key.placeholder {
            "BOOL" => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            list if list.ends_with('…') => arg.action(ArgAction::Append),
            _ => arg,
        }
    });
    Command::new("ringmain")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Ringmain: a WebRTC media server. Clients of ion-sfu (JSON-RPC on /ws) work with it unchanged.")
        .after_help(EXAMPLES)
        .arg(config)
        .args(settings)
        .subcommand(
            Command::new("config")
                .about("Print the effective configuration as TOML, each value with where it came from, and end"),
        )
        .subcommand(
            Command::new("turn").about("Serve TURN and nothing else, in coturn's place").arg(
                Arg::new("coturn-config").long("coturn-config").value_name("FILE").help(
                    "Take the settings from coturn's turnserver.conf; what it says that is not served is told in one go",
                ),
            ),
        )
        .subcommand(
            Command::new("turn-credentials")
                .about("Print a time-limited TURN credential, made with turn.shared_secret as coturn's use-auth-secret has it")
                .arg(Arg::new("user").value_name("USER").help(
                    "Whose it is, behind the colon of the username; with --oauth, which key makes it, the first by default",
                ))
                .arg(Arg::new("oauth").long("oauth").action(ArgAction::SetTrue).help(
                    "A token of third-party authorization (RFC 7635), made with a key of turn.oauth_keys, to try that out",
                ))
                .arg(
                    Arg::new("lifetime")
                        .long("lifetime")
                        .value_name("SECONDS")
                        .value_parser(clap::value_parser!(u64).range(1..=315_360_000))
                        .help("How long it allows new allocations [default: 86400]"),
                )
                .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("As JSON, as an iceServers entry")),
        )
        .subcommand(
            Command::new("admin").about("Ask a running server by its admin_socket: what it relays, and to stop that").arg(
                Arg::new("order").value_name("ORDER").num_args(1..).required(true).help(
                    "\"allocations\", \"kill ID\", \"drain\" (no new allocations) or \"undrain\"",
                ),
            ),
        )
        .subcommand(
            Command::new(LOAD)
                .about("Load a server with publishers and subscribers, and measure it; see `ringmain load --help`"),
        )
}

/// ion-sfu was started with Go's single-dash long flags.
fn ion_flag(argument: OsString) -> OsString {
    match argument.to_str() {
        Some("-cert") => "--tls-cert".into(),
        Some("-key") => "--tls-key".into(),
        Some(text) => match text.split_once('=') {
            Some(("-cert", value)) => format!("--tls-cert={value}").into(),
            Some(("-key", value)) => format!("--tls-key={value}").into(),
            _ => argument,
        },
        None => argument,
    }
}

/// A global flag's value, given before or after the subcommand.
fn chosen<'a, T: Clone + Send + Sync + 'static>(matches: &'a ArgMatches, flag: &str) -> Option<&'a T> {
    matches.get_one(flag).or_else(|| matches.subcommand().and_then(|(_, inner)| inner.get_one(flag)))
}

fn all(matches: &ArgMatches, flag: &str) -> Vec<String> {
    let inner = matches.subcommand().and_then(|(_, inner)| inner.get_many::<String>(flag));
    inner.or_else(|| matches.get_many::<String>(flag)).into_iter().flatten().cloned().collect()
}

/// The subcommand of [`load`].
const LOAD: &str = "load";

const CONFIG_VARIABLE: &str = "RINGMAIN_CONFIG";

const EXAMPLES: &str = "\
Examples:
  ringmain                                  Serve the page on http://localhost:7000, media from UDP port 5000
  ringmain --tls-self-signed                The same over HTTPS, to try it from another device of the network
  ringmain --announce 203.0.113.7           On a host behind NAT: tell clients the public address
  ringmain --one-port 443 --turn --tls-cert cert.pem --tls-key key.pem
                                            Everything on TCP 443 and UDP 443 (and one more for each further worker)
  ringmain --bind 192.0.2.1 --workers 2     Listen on one address only, with two workers (UDP 5000 and 5001)
  ringmain --config ringmain.toml           Settings from a file; flags and RINGMAIN_… variables come first
  ringmain config > ringmain.toml           Write a file with every setting and what it is for
  ringmain -c config.toml -a :7000          As ion-sfu was started

Precedence: flag, then environment, then file, then default.
Open in the firewall: TCP 7000 (page and signalling), UDP 5000 and one more for each further worker (media),
TCP 5000 (media of clients that no UDP reaches).";
