//! Metrics for Prometheus. A process has one recorder, which all its servers share.

use std::sync::OnceLock;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use graviton_core::{Code, Error, Result};
use http::header::CONTENT_TYPE;
use metrics::Unit;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::{App, Shared};
use crate::schemas::Common;

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// How often histograms are summed up. Without this they grow if nobody reads them.
const UPKEEP: Duration = Duration::from_secs(5);

/// The buckets of request durations, in seconds.
const BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// Installs the recorder of this process, unless it is installed already.
pub(crate) fn install() -> Result<()> {
    let failed = || Error::new(Code::Internal, "cannot record metrics: this process has another recorder");
    let handle = RECORDER.get_or_init(|| {
        let recorder = PrometheusBuilder::new().set_buckets(BUCKETS).ok()?.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok()?;
        describe();
        Some(handle)
    });
    handle.as_ref().map(|_| ()).ok_or_else(failed)
}

/// Sums up histograms periodically; never returns.
pub(crate) async fn keep_up() {
    let mut interval = tokio::time::interval(UPKEEP);
    loop {
        interval.tick().await;
        if let Some(Some(handle)) = RECORDER.get() {
            handle.run_upkeep();
        }
    }
}

fn describe() {
    use metrics::{describe_counter as counter, describe_gauge as gauge, describe_histogram as histogram};
    counter!("graviton_http_requests_total", "Requests by route, method and status");
    histogram!(
        "graviton_http_request_seconds",
        Unit::Seconds,
        "Time from the headers of a request to the headers of its response"
    );
    counter!("graviton_http_given_up_requests_total", "Requests whose connection ended before the answer");
    counter!("graviton_http_given_up_downloads_total", "Downloads whose connection ended before their end");
    counter!("graviton_received_bytes_total", Unit::Bytes, "Bytes of uploads received");
    counter!("graviton_sent_bytes_total", Unit::Bytes, "Bytes of blobs sent");
    counter!("graviton_put_bytes_total", Unit::Bytes, "Bytes of blobs stored");
    counter!("graviton_put_fresh_bytes_total", Unit::Bytes, "Bytes of new blocks among them");
    counter!(
        "graviton_put_fresh_stored_bytes_total",
        Unit::Bytes,
        "Bytes that these blocks take where they are stored, after compression"
    );
    counter!(
        "graviton_put_blocks_total",
        "Blocks of stored blobs, new (fresh) and already stored (duplicate)"
    );
    gauge!(
        "graviton_dedup_ratio",
        "Size of all blobs divided by the size of their blocks, at the last request of /api/stats"
    );
    gauge!(
        "graviton_stored_bytes",
        Unit::Bytes,
        "Size of all stored blocks, at the last request of /api/stats"
    );
    gauge!(
        "graviton_pack_bytes",
        Unit::Bytes,
        "Bytes of packs by what they are (live, dead, punched, pending, open, unknown), at the last request of /api/stats"
    );
    counter!("graviton_gc_runs_total", "Garbage collections completed by this server");
    counter!("graviton_gc_blocks_total", "Blocks that they deleted");
    counter!("graviton_gc_bytes_total", Unit::Bytes, "Bytes that they freed");
    counter!("graviton_repack_runs_total", "Repacks completed by this server");
    counter!("graviton_repack_blocks_total", "Blocks that they moved");
    counter!("graviton_repack_damage_total", "Damaged blocks that they found");
    counter!("graviton_verify_runs_total", "Verifications completed by this server");
    counter!("graviton_verify_blocks_total", "Blocks that they checked");
    counter!("graviton_verify_damage_total", "Missing or corrupt items that they found");
    counter!("graviton_log_lines_dropped_total", "Log lines dropped because standard error was blocked");
    gauge!("graviton_http_connections", "Open connections");
    gauge!("graviton_uploads", "Uploads that hold a slot");
    gauge!("graviton_downloads", "Downloads in progress");
    gauge!("graviton_database_connections", "Database connections in use; for SQLite, those that read");
    gauge!("graviton_database_connections_max", "Most database connections");
    counter!("graviton_http_refused_connections_total", "Connections refused because of the limit");
    counter!(
        "graviton_http_stalled_connections_total",
        "Connections closed because the client did not read its response"
    );
    gauge!(
        "graviton_held_bytes",
        Unit::Bytes,
        "Memory of requests and blobs in transit, out of GRAVITON_HTTP_MEMORY"
    );
    gauge!(
        "graviton_directory_share",
        "How full the index of the fullest directory of blocks is, from 0 to 1"
    );
    gauge!("graviton_runtime_tasks", "Live tasks of the runtime");
    gauge!("process_resident_memory_bytes", Unit::Bytes, "Resident memory");
    gauge!("process_open_fds", "Open file descriptors");
}

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(page))
}

/// Metrics for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "operations",
    responses((status = 200, content_type = "text/plain", body = String, description = "The metrics"), Common))]
async fn page(State(app): State<Shared>) -> Response {
    measure(&app);
    let text = RECORDER.get().and_then(Option::as_ref).map(PrometheusHandle::render).unwrap_or_default();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Updates the gauges, which are measured only on request.
fn measure(app: &App) {
    let (uploads, downloads) = app.transfers();
    metrics::gauge!("graviton_http_connections").set(app.connections().taken() as f64);
    metrics::gauge!("graviton_uploads").set(uploads as f64);
    metrics::gauge!("graviton_downloads").set(downloads as f64);
    let database = app.store().connections();
    metrics::gauge!("graviton_database_connections").set(database.busy as f64);
    metrics::gauge!("graviton_database_connections_max").set(database.most as f64);
    for (direction, budget) in [("in", app.incoming()), ("out", app.outgoing())] {
        metrics::gauge!("graviton_held_bytes", "direction" => direction).set(budget.figures().1 as f64);
    }
    let runtime = tokio::runtime::Handle::current().metrics();
    metrics::gauge!("graviton_runtime_tasks").set(runtime.num_alive_tasks() as f64);
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!("process_resident_memory_bytes").set(bytes as f64);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        metrics::gauge!("process_open_fds").set(open.count() as f64);
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}
