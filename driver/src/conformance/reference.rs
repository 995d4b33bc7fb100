//! Which case stands for which test of distribution's driver suite.
//!
//! Source: distribution, `registry/storage/driver/testsuites/testsuites.go` (36 tests) and `registry/storage/driver/walk_test.go`.
//! Sizes are cut to what crosses every buffer: the suite is to run on every change, and correctness does not grow with bytes.

/// A test of distribution, and what stands for it here.
#[derive(Clone, Copy, Debug)]
pub struct Reference {
    /// Its name there.
    pub test: &'static str,
    /// The cases here.
    pub cases: &'static [&'static str],
    /// What is different; empty if nothing is.
    pub different: &'static str,
}

macro_rules! reference {
    ($($test:literal => [$($case:literal),+] $($different:literal)?;)+) => {
        &[$(Reference { test: $test, cases: &[$($case),+], different: concat!($($different)?) }),+]
    };
}

/// Every test of distribution's suites.
pub const REFERENCE: &[Reference] = reference! {
    "TestRootExists" => ["root_exists"];
    "TestValidPaths" => ["unusual_paths_hold_content"] "the layout's own paths where it is not a free tree";
    "TestInvalidPaths" => ["hostile_texts_are_no_paths", "foreign_paths_are_refused"]
        "an invalid path cannot be made, so no driver sees one; what a layout has no place for is refused by it";
    "TestWriteRead1" => ["put_content_is_read_back", "planted_content_is_read_back"];
    "TestWriteRead2" => ["put_content_is_read_back", "planted_content_is_read_back"];
    "TestWriteRead3" => ["put_content_is_read_back", "planted_content_is_read_back"];
    "TestWriteRead4" => ["put_content_is_read_back", "planted_content_is_read_back"];
    "TestWriteReadNonUTF8" => ["put_content_is_read_back", "planted_content_is_read_back"];
    "TestTruncate" => ["put_content_replaces_all_of_it"];
    "TestReadNonexistent" => ["missing_content_is_not_found"];
    "TestWriteReadStreams1" => ["written_streams_are_read_back"];
    "TestWriteReadStreams2" => ["written_streams_are_read_back"];
    "TestWriteReadStreams3" => ["written_streams_are_read_back"];
    "TestWriteReadStreams4" => ["written_streams_are_read_back"];
    "TestWriteReadStreamsNonUTF8" => ["written_streams_are_read_back"];
    "TestWriteReadLargeStreams" => ["a_large_stream_is_read_back"] "16 MB for 5 GB";
    "TestReaderWithOffset" => ["ranges_give_their_bytes"]
        "600 kB for 96 bytes; ends too; a negative offset cannot be asked for";
    "TestContinueStreamAppendLarge" => ["appending_goes_on_where_it_was"] "parts of 300 kB for 10 MB";
    "TestContinueStreamAppendSmall" => ["appending_goes_on_where_it_was"];
    "TestReadNonexistentStream" => ["missing_streams_are_not_found"];
    "TestWriteZeroByteStreamThenAppend" => ["empty_commit_can_be_appended_to"];
    "TestWriteZeroByteContentThenAppend" => ["empty_content_can_be_appended_to"];
    "TestList" => ["list_gives_direct_children", "missing_folders_are_not_found"];
    "TestMove" => ["rename_moves_content", "a_stream_is_renamed_to_its_place"];
    "TestMoveOverwrite" => ["rename_overwrites", "a_stream_is_renamed_onto_the_same_content"];
    "TestMoveNonexistent" => ["rename_of_nothing_leaves_the_destination"];
    "TestMoveInvalid" => ["nothing_lies_under_a_file"];
    "TestDelete" => ["delete_removes_a_folder_with_all_in_it", "delete_of_one_file_leaves_its_siblings"];
    "TestRedirectURL" => ["a_redirect_is_a_place"] "nothing is fetched: no driver here redirects";
    "TestDeleteNonexistent" => ["delete_of_nothing_is_not_found"];
    "TestDeleteFolder" => ["delete_removes_a_folder_with_all_in_it", "delete_of_one_file_leaves_its_siblings"];
    "TestDeleteOnlyDeletesSubpaths" => ["delete_goes_by_whole_parts"];
    "TestStatCall" => ["stat_tells_size_kind_and_time", "planted_content_is_described", "root_exists"]
        "waits until the clock ticks instead of 10 s";
    "TestPutContentMultipleTimes" => ["put_content_replaces_all_of_it"];
    "TestConcurrentStreamReads" => ["streams_are_read_concurrently"] "2 MB for 128 MB";
    "TestConcurrentFileStreams" => ["files_are_written_concurrently"] "8 files for 32";
    "TestWalkFallback: walk all" => ["walks_see_everything_in_order"];
    "TestWalkFallback: skip directory" => ["walks_skip_folders"];
    "TestWalkFallback: start late" => ["walks_start_after_their_hint"]
        "seven tests in one: every path that exists, and some that do not, is the hint once";
    "TestWalkFallback: stop early" => ["walks_skip_folders", "what_vanishes_during_a_walk_is_skipped"]
        "a walk is pulled: stopping is not asking on";
    "TestWalkFallback: error" => ["walks_begin_at_a_folder"]
        "at the first step; one on the way is met by a test of the agent's driver, which cannot list everything";
    "TestWalkFallback: from folder" => ["walks_begin_at_a_folder"];
    "TestWalkFileRemoved" => ["what_vanishes_during_a_walk_is_skipped"];
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::Suite;

    #[test]
    fn every_test_of_distribution_has_a_case() {
        let (suite, walks): (Vec<&Reference>, Vec<&Reference>) =
            REFERENCE.iter().partition(|reference| !reference.test.starts_with("TestWalk"));
        assert_eq!((suite.len(), walks.len()), (36, 7));
        for Reference { test, cases, .. } in REFERENCE {
            for case in *cases {
                assert!(Suite::cases().any(|name| name == *case), "{test} names {case}");
            }
        }
    }
}
