//! Writes one file's content in parts, into `pending/`, and moves it into the tree at the end.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::FilesystemDriver;
use super::disk::{Disk, DiskError};
use crate::driver::FileWriter;
use crate::error::DriverError;
use crate::path::DriverPath;
use crate::request::Operation;
use crate::writer::{Step, WriterState};

/// A writer of one file. The open file is the lock against a second writer.
pub(super) struct FilesystemWriter {
    driver: FilesystemDriver,
    path: DriverPath,
    /// `None` after the close.
    file: Option<Arc<File>>,
    /// Bytes in the file.
    written: u64,
    /// Bytes that were there before.
    found: u64,
    /// Bytes behind those.
    buffer: BytesMut,
    state: WriterState,
}

/// How many bytes are collected before they are written: a network's frames are small against the cost of a hop between
/// threads.
const WRITE_BUFFER: usize = 256 * 1024;

impl FilesystemWriter {
    pub(super) fn new(driver: FilesystemDriver, path: DriverPath, file: File, size: u64) -> Self {
        Self {
            driver,
            path,
            file: Some(Arc::new(file)),
            written: size,
            found: size,
            buffer: BytesMut::new(),
            state: WriterState::Open,
        }
    }

    async fn flush(&mut self) -> Result<(), DriverError> {
        let bytes = self.buffer.split().freeze();
        self.write_through(bytes).await
    }

    async fn write_through(&mut self, bytes: Bytes) -> Result<(), DriverError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (at, length) = (self.written, bytes.len() as u64);
        self.on_file(move |disk, _, file| {
            disk.ensure_room(length)?;
            Ok(file.write_all_at(&bytes, at)?)
        })
        .await?;
        self.written += length;
        Ok(())
    }

    async fn on_file(
        &self,
        work: impl FnOnce(&Disk, &DriverPath, &File) -> Result<(), DiskError> + Send + 'static,
    ) -> Result<(), DriverError> {
        let Some(file) = self.file.clone() else { return Ok(()) };
        self.driver.run(Operation::Writer, &self.path, move |disk, path| work(disk, path, &file)).await
    }
}

#[async_trait]
impl FileWriter for FilesystemWriter {
    fn size(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), DriverError> {
        let next = self.state.begin(Step::Write, self.driver.work.errors)?;
        if self.buffer.len() + bytes.len() > WRITE_BUFFER {
            self.flush().await?;
        }
        if bytes.len() >= WRITE_BUFFER {
            self.write_through(bytes).await?;
        } else {
            self.buffer.extend_from_slice(&bytes);
        }
        self.state = next;
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), DriverError> {
        let next = self.state.begin(Step::Commit, self.driver.work.errors)?;
        self.flush().await?;
        self.on_file(|disk, path, file| {
            file.sync_all()?;
            disk.commit_pending(path, file)
        })
        .await?;
        self.state = next;
        Ok(())
    }

    async fn cancel(&mut self) -> Result<(), DriverError> {
        let next = self.state.begin(Step::Cancel, self.driver.work.errors)?;
        self.buffer.clear();
        self.written = 0;
        self.on_file(Disk::cancel_pending).await?;
        self.state = next;
        Ok(())
    }

    async fn close(&mut self) -> Result<(), DriverError> {
        let was = self.state;
        let next = self.state.begin(Step::Close, self.driver.work.errors)?;
        if was == WriterState::Open && self.size() > self.found {
            self.flush().await?;
            self.on_file(|_, _, file| Ok(file.sync_data()?)).await?;
        }
        self.file = None;
        self.buffer = BytesMut::new();
        self.state = next;
        Ok(())
    }
}
