//! The peer-to-peer drivers against the contract, over the paths of the registry: what of it they cannot do, and why.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use shoal_core::{Digest, Metainfo, PieceIndex, SignedMetainfo};
use shoal_driver::conformance::{Arriving, Layout, Refusal, RegistryLayout, Subject, Suite};
use shoal_driver::{
    Context, DriverError, DriverPath, FilesystemDriver, ReadOnlyDriver, ReadWriteDriver, RegistryPath,
    StorageDriver, Transferer,
};
use shoal_store::{Entry, Partial, Store};
use tempfile::TempDir;

use crate::cluster::{Cluster, open_store, repository, signer};

/// A node that can be started anew.
struct Machine {
    role: Role,
    layout: RegistryLayout,
    cluster: Arc<Cluster>,
    running: Mutex<Running>,
    directory: TempDir,
}

/// What the driver of the node does, and for an agent, where what it reads comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Origin,
    AgentWithBlobs,
    AgentOfCluster,
}

#[derive(Clone)]
struct Running {
    store: Store,
    driver: Arc<dyn StorageDriver>,
}

impl Machine {
    async fn start(role: Role) -> Arc<Self> {
        let directory = tempfile::tempdir().unwrap();
        let store = open_store(&directory, "local").await;
        let cluster = Cluster::new(store.clone()).await;
        let running = Mutex::new(Running { driver: role.driver(&store, &cluster, &directory), store });
        Arc::new(Self { role, layout: RegistryLayout(repository()), cluster, running, directory })
    }

    fn store(&self) -> Store {
        self.running.lock().unwrap().store.clone()
    }

    /// Puts a blob into the store of an agent, as a fetch would have.
    async fn fill(&self, content: Bytes) -> Digest {
        let (digest, sign) = (Digest::sha256(&content), signer());
        self.store().put(content, &digest, move |metainfo| sign(metainfo)).await.unwrap();
        digest
    }
}

impl Role {
    fn driver(self, store: &Store, cluster: &Arc<Cluster>, directory: &TempDir) -> Arc<dyn StorageDriver> {
        let (store, transferer) = (store.clone(), Arc::clone(cluster) as Arc<dyn Transferer>);
        match self {
            Self::Origin => {
                let metadata = FilesystemDriver::new(directory.path().join("metadata"));
                Arc::new(ReadWriteDriver::new(store, metadata, transferer, signer()))
            }
            Self::AgentWithBlobs | Self::AgentOfCluster => Arc::new(ReadOnlyDriver::new(store, transferer)),
        }
    }
}

#[async_trait]
impl Subject for Machine {
    fn driver(&self) -> Arc<dyn StorageDriver> {
        Arc::clone(&self.running.lock().unwrap().driver)
    }

    fn layout(&self) -> &dyn Layout {
        &self.layout
    }

    async fn plant(&self, content: Bytes) -> Result<DriverPath, DriverError> {
        let digest = match self.role {
            Role::Origin => {
                let blob = self.layout.blob(&content);
                self.driver().put_content(&Context::of(repository()), &blob, content).await?;
                return Ok(blob);
            }
            Role::AgentWithBlobs => self.fill(content).await,
            Role::AgentOfCluster => self.cluster.seed(&repository(), content).await,
        };
        Ok(RegistryPath::BlobData(digest).to_driver_path())
    }

    async fn uproot(&self, blob: &DriverPath) -> Result<(), DriverError> {
        let Ok(RegistryPath::BlobData(digest)) = RegistryPath::parse(blob) else { panic!("{blob}") };
        self.store().delete(&digest).await.unwrap();
        self.cluster.forget(&digest).await;
        Ok(())
    }

    async fn restart(&self) -> Result<(), DriverError> {
        self.store().close().await;
        let store = open_store(&self.directory, "local").await;
        self.cluster.set_local(store.clone());
        let driver = self.role.driver(&store, &self.cluster, &self.directory);
        *self.running.lock().unwrap() = Running { store, driver };
        Ok(())
    }

    async fn arriving(&self, content: Bytes) -> Result<Arriving, DriverError> {
        let metainfo = Metainfo::of(&content).unwrap();
        let digest = *metainfo.digest();
        let proof = signer()(&metainfo);
        let created = self.store().create(&SignedMetainfo { metainfo, proof }).await.unwrap();
        let Entry::Partial(partial) = created else { panic!("{digest} is whole already") };
        self.cluster.admit(&repository(), &digest);
        let pieces: Vec<_> = partial.metainfo().geometry().pieces().map(|piece| piece.index).collect();
        let (first, second) = pieces.split_at(pieces.len() / 2);
        write_pieces(&partial, first, &content).await;
        let second = second.to_vec();
        let rest = async move {
            // From the end, so that every reader waits for its next piece until the last one is in.
            let backwards: Vec<_> = second.into_iter().rev().collect();
            write_pieces(&partial, &backwards, &content).await;
            partial.commit().await.unwrap();
        };
        Ok(Arriving { path: RegistryPath::BlobData(digest).to_driver_path(), rest: Box::pin(rest) })
    }
}

async fn write_pieces(partial: &Partial, pieces: &[PieceIndex], content: &Bytes) {
    for index in pieces {
        let piece = partial.metainfo().geometry().piece(*index).unwrap();
        let start = piece.offset as usize;
        partial.write_piece(*index, content.slice(start..start + piece.length as usize)).await.unwrap();
    }
}

/// Runs the suite; every case holds or is refused.
async fn keeps_the_contract(suite: Suite, refused: usize) {
    let report = suite.run().await;
    report.assert();
    assert_eq!(report.refused.len(), refused);
    assert_eq!(report.passed.len() + refused, Suite::cases().count());
}

#[tokio::test]
async fn the_read_write_driver_keeps_the_contract() {
    let suite = Suite::new(Machine::start(Role::Origin).await)
        .impossible(
            &["empty_content_can_be_appended_to"],
            Refusal::InvalidRequest,
            "an upload's bytes come by its writer only: content put whole has no upload to go on with",
        )
        .impossible(
            &[
                "rename_moves_content",
                "rename_overwrites",
                "rename_moves_folders",
                "concurrent_renames_onto_each_other_lose_one",
            ],
            Refusal::InvalidRequest,
            "a rename is the end of an upload: its data becomes the blob that it is, nothing else moves",
        )
        .impossible(
            &["nothing_lies_under_a_file"],
            Refusal::InvalidPath,
            "the grammar has no path below a file, so there is nothing to ask for",
        )
        .impossible(
            &["delete_of_one_file_leaves_its_siblings"],
            Refusal::InvalidRequest,
            "an upload is deleted whole: one of its files alone would make another upload of it",
        );
    keeps_the_contract(suite, 7).await;
}

#[tokio::test]
async fn the_read_only_driver_keeps_the_contract_over_a_store() {
    keeps_the_contract(read_only(Role::AgentWithBlobs).await, 41).await;
}

#[tokio::test]
async fn the_read_only_driver_keeps_the_contract_over_a_cluster() {
    keeps_the_contract(read_only(Role::AgentOfCluster).await, 41).await;
}

async fn read_only(role: Role) -> Suite {
    Suite::new(Machine::start(role).await)
        .impossible(
            &[
                "unusual_paths_hold_content",
                "put_content_is_read_back",
                "put_content_replaces_all_of_it",
                "concurrent_puts_are_never_mixed",
                "written_streams_are_read_back",
                "a_large_stream_is_read_back",
                "appending_goes_on_where_it_was",
                "empty_commit_can_be_appended_to",
                "empty_content_can_be_appended_to",
                "appending_to_nothing_is_not_found",
                "uncommitted_content_is_not_visible",
                "cancel_leaves_nothing",
                "a_writer_ends_once",
                "create_truncates_what_was_not_committed",
                "a_path_has_one_writer",
                "files_are_written_concurrently",
                "a_commit_is_never_mixed_with_what_it_replaces",
                "a_reader_outlives_a_rewrite",
                "a_crash_before_the_commit_shows_nothing",
                "an_upload_goes_on_after_a_restart",
            ],
            Refusal::Unsupported,
            "an agent takes no content from its clients",
        )
        .impossible(
            &[
                "rename_moves_content",
                "rename_overwrites",
                "a_stream_is_renamed_to_its_place",
                "a_stream_is_renamed_onto_the_same_content",
                "rename_of_nothing_leaves_the_destination",
                "concurrent_renames_to_one_place_agree",
                "concurrent_renames_onto_each_other_lose_one",
                "rename_moves_folders",
                "delete_removes_a_folder_with_all_in_it",
                "delete_of_one_file_leaves_its_siblings",
                "delete_of_nothing_is_not_found",
                "delete_goes_by_whole_parts",
                "delete_removes_what_is_not_committed",
                "nothing_lies_under_a_file",
            ],
            Refusal::Unsupported,
            "an agent moves and deletes nothing on behalf of its clients: its cache is its own",
        )
        .impossible(
            &[
                "list_gives_direct_children",
                "stat_tells_size_kind_and_time",
                "walks_see_everything_in_order",
                "walks_skip_folders",
                "walks_start_after_their_hint",
                "walks_begin_at_a_folder",
                "what_vanishes_during_a_walk_is_skipped",
            ],
            Refusal::Unsupported,
            "a tree to list has to be put first; and an agent, which has no files, lists nothing but tags",
        )
}
