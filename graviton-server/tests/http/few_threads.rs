//! A server whose user may have few threads: it serves, or says what is lacking; it never panics or hangs.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};

use crate::scene::{client, noise};

const NOBODY: u32 = 65_534;

#[tokio::test(flavor = "multi_thread")]
async fn with_few_threads_it_serves_or_says_so() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
    // Where others may run it.
    let program = directory.path().join("graviton-server");
    std::fs::copy(env!("CARGO_BIN_EXE_graviton-server"), &program).unwrap();
    let (mut refused, mut stored, mut put_off) = (0, 0, 0);
    for limit in (2..40).step_by(3) {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("ulimit -u {limit}; exec \"$0\" \"$@\"")]).arg(&program);
        command.arg("--root").arg(directory.path().join(format!("store-{limit}")));
        command.args(["--set", "GRAVITON_HTTP_PORT=0"]);
        if rustix::process::geteuid().is_root() {
            // Root has no limit on threads.
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut server = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if let Some(address) = line.trim().strip_prefix("listening on ") {
            let puts = (0..8)
                .map(|seed| client().post(format!("{address}/api/blobs")).body(noise(seed, 300_000)).send());
            for answer in join_all(puts).await {
                match answer.unwrap().status().as_u16() {
                    201 => stored += 1,
                    503 => put_off += 1,
                    other => panic!("an upload beside {limit} threads was answered {other}"),
                }
            }
            assert_eq!(client().get(format!("{address}/api/health")).send().await.unwrap().status(), 200);
            kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
            assert!(server.wait().unwrap().success(), "{limit}");
        } else {
            refused += 1;
            assert_eq!(server.wait().unwrap().code(), Some(1), "{limit}");
        }
        let mut said = String::new();
        server.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(!said.contains("panicked"), "{limit}: {said}");
        assert!(!line.is_empty() || said.contains("ulimit -u"), "{limit}: {said}");
    }
    assert!(refused > 0 && stored > 0, "{refused} refused, {stored} stored, {put_off} put off");
}
