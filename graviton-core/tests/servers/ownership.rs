//! A copy of the database does not pass for the database, on PostgreSQL and beside blocks in S3.

use std::os::unix::fs::PermissionsExt;

use graviton_core::{BlobId, Config};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::support::cluster::{Cluster, dump_and_restore, program, run};
use crate::support::needs_servers;
use crate::support::ownership::{collect, is_refused, works};
use crate::support::pair::{Blocks, Manifests, Pair, in_runtime, new_database, s3_client};

/// The database of a pair, and a copy of it.
fn changes_hands(owner: &Config, copy: &Config, id: &BlobId) {
    is_refused(copy, id);
    works(owner, id);
    is_refused(copy, id);
    copy.clone().take_over(true).open().unwrap().close();
    works(copy, id);
    let why = is_refused(owner, id);
    assert!(why.contains("old copy"), "{why}");
    works(copy, id);
}

/// Of the same blocks, with the manifests at another URL.
fn at(pair: &Pair, url: &str) -> Config {
    pair.config().set("GRAVITON_MANIFEST_URL", url).unwrap()
}

#[test]
fn a_copy_of_a_database_in_sqlite_is_refused_beside_s3() {
    needs_servers!();
    let pair = Pair::new(Blocks::S3, Manifests::Sqlite);
    let store = pair.open();
    let id = store.put(&b"first"[..]).unwrap().id;
    // Everything is in the file that is copied.
    store.close();
    let copy = pair.root.path().join("copy.db");
    std::fs::copy(pair.root.path().join("manifests.db"), &copy).unwrap();
    changes_hands(&pair.config(), &at(&pair, &format!("sqlite:{}", copy.display())), &id);
    let object = Path::from(format!("{}/generation", pair.setting("GRAVITON_S3_BLOCK_PREFIX")));
    let generation = in_runtime(async { s3_client().get(&object).await.unwrap().bytes().await.unwrap() });
    let generation: u64 = std::str::from_utf8(&generation).unwrap().trim_end().parse().unwrap();
    assert!(generation >= 3, "{generation}");
}

/// Puts ask S3 for nothing: they would rely on what the copy says of blocks that the other database deleted.
#[test]
fn a_put_after_a_take_over_relies_on_no_block_that_the_other_database_deleted() {
    needs_servers!();
    for manifests in [Manifests::Sqlite, Manifests::Postgres] {
        let pair = Pair::new(Blocks::S3, manifests);
        let store = pair.open();
        let content = vec![7; 300_000];
        let id = store.put_bytes(content.clone()).unwrap().id;
        store.close();
        let copy = match manifests {
            Manifests::Sqlite => {
                let copy = pair.root.path().join("copy.db");
                std::fs::copy(pair.root.path().join("manifests.db"), &copy).unwrap();
                at(&pair, &format!("sqlite:{}", copy.display()))
            }
            Manifests::Postgres => {
                let url = pair.setting("GRAVITON_MANIFEST_URL").to_owned();
                let (server, name) = url.rsplit_once('/').unwrap();
                let statement = format!("CREATE DATABASE {name}_copy TEMPLATE {name}");
                run(program("psql").args([
                    "--dbname",
                    &format!("{server}/postgres"),
                    "--command",
                    &statement,
                ]));
                at(&pair, &format!("{url}_copy"))
            }
        };
        let store = pair.open();
        store.delete(&id).unwrap();
        assert!(collect(&store).unwrap().blocks > 0);
        store.close();
        let copy = copy.take_over(true).open().unwrap();
        copy.put_bytes([&content[..], b"and more"].concat()).unwrap();
        let again = copy.put_bytes(content.clone()).unwrap();
        assert_eq!(again.id, id);
        assert_eq!(copy.read_range(&id, 0..u64::MAX).unwrap(), content);
    }
}

#[test]
fn a_copy_of_a_database_in_postgres_is_refused_in_its_cluster() {
    needs_servers!();
    for blocks in [Blocks::Files, Blocks::S3] {
        let pair = Pair::new(blocks, Manifests::Postgres);
        let id = pair.open().put(&b"first"[..]).unwrap().id;
        let url = pair.setting("GRAVITON_MANIFEST_URL").to_owned();
        let (server, name) = url.rsplit_once('/').unwrap();
        let statement = format!("CREATE DATABASE {name}_copy TEMPLATE {name}");
        run(program("psql").args(["--dbname", &format!("{server}/postgres"), "--command", &statement]));
        changes_hands(&pair.config(), &at(&pair, &format!("{url}_copy")), &id);
    }
}

#[test]
fn a_dump_is_refused_where_it_was_restored() {
    needs_servers!();
    let pair = Pair::new(Blocks::Files, Manifests::Postgres);
    let id = pair.open().put(&b"first"[..]).unwrap().id;
    let (url, other) = (pair.setting("GRAVITON_MANIFEST_URL"), new_database());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o644)).unwrap();
    dump_and_restore(url, &other, file.path());
    changes_hands(&pair.config(), &at(&pair, &other), &id);
}

#[test]
fn a_standby_that_was_promoted_is_refused_until_it_takes_over_and_then_the_old_primary_is() {
    needs_servers!();
    let primary = Cluster::new();
    let pair = Pair::new(Blocks::Files, Manifests::Sqlite);
    let config = |cluster: &Cluster| at(&pair, &format!("{}/postgres", cluster.url()));
    let id = config(&primary).open().unwrap().put(&b"first"[..]).unwrap().id;
    let standby = primary.standby();
    // A standby can be read.
    let reading = config(&standby).open_read_only().unwrap();
    assert_eq!(&reading.read_range(&id, 0..9).unwrap()[..], b"first");
    standby.promote();
    changes_hands(&config(&primary), &config(&standby), &id);
}

/// A role that owns its database and nothing else may ask where it is.
#[test]
fn a_role_without_rights_is_refused_a_copy_as_well() {
    needs_servers!();
    let cluster = Cluster::new();
    let sql = |database: &str, statement: &str| {
        let url = format!("{}/{database}", cluster.url());
        run(program("psql").args(["--dbname", &url, "--command", statement]));
    };
    sql("postgres", "CREATE ROLE plain LOGIN CREATEDB");
    sql("postgres", "CREATE DATABASE plain OWNER plain");
    let pair = Pair::new(Blocks::Files, Manifests::Sqlite);
    let url = cluster.url().replace("graviton@", "plain@");
    let config = |name: &str| at(&pair, &format!("{url}/{name}"));
    let id = config("plain").open().unwrap().put(&b"first"[..]).unwrap().id;
    sql("postgres", "CREATE DATABASE copy OWNER plain TEMPLATE plain");
    changes_hands(&config("plain"), &config("copy"), &id);
    // Nor does a server that says nothing keep anybody from putting: the generation tells alone.
    sql("plain", "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC");
    sql("copy", "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC");
    works(&config("copy"), &id);
    is_refused(&config("plain"), &id);
}
