//! The log: lines on standard error, as text or JSON, each request with its id.

use tracing_subscriber::EnvFilter;

use crate::settings::Settings;

/// Begins to log as the settings say. Once in a process; later calls change nothing.
pub fn install(settings: &Settings) {
    // Libraries underneath have words for their developers; only what is wrong is for the operator.
    let filter = EnvFilter::new(format!("warn,graviton_server={0},graviton_core={0}", settings.log));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let _ = if settings.log_json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
        builder.with_ansi(colours).try_init()
    };
}
