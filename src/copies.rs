//! `shoal push`, `pull`, `copy`, `tag` and `delete`: images between registries and files.

mod options;
mod progress;

use std::path::Path;

use anyhow::{Context as _, bail};
use bytesize::ByteSize;
use clap::Args;
use serde::Serialize;
use shoal_core::{Reference, Tag};
use shoal_images::{
    Copied, DockerSource, ImageError, LayoutSink, LayoutSource, Location, RegistrySink, RegistrySource, Sink,
    Source,
};
use shoal_upstream::{ImageReference, UpstreamError};

use options::{AccessOptions, MoveOptions};
use progress::Bars;

macro_rules! exit_statuses {
    () => {
        "Exit status: 3 for what is not there, 4 for access that was denied, 5 for what may do another time, 1 for all else."
    };
}

#[derive(Debug, Args)]
#[command(after_help = concat!("Examples:\n  \
    shoal push oci:build/image registry.example.com/team/app:1.2\n  \
    shoal push docker-archive:saved.tar:app:1.2 localhost:15000/team/app:1.2\n\n\
    What the registry has is not sent again. After an interruption the same command goes on where it was.\n\n", exit_statuses!()))]
pub(crate) struct PushOptions {
    /// The image: oci:FOLDER[:NAME], oci-archive:FILE[:NAME] or docker-archive:FILE[:NAME:TAG].
    #[arg(value_name = "SOURCE", value_parser = Location::parse)]
    source: Location,
    /// Where it goes: host[:port]/repository[:tag]. Without a tag: latest.
    #[arg(value_name = "REFERENCE", value_parser = ImageReference::parse)]
    reference: ImageReference,
    #[command(flatten)]
    moves: MoveOptions,
    #[command(flatten)]
    access: AccessOptions,
}

#[derive(Debug, Args)]
#[command(after_help = concat!("Examples:\n  \
    shoal pull alpine:3 oci:images:alpine-3\n  \
    shoal pull --platform linux/arm64 ghcr.io/team/app:1 docker-archive:app.tar:app:1\n\n\
    After an interruption the same command goes on where it was. An archive that is not whole is a folder beside it, \
    FILE.partial.\n\n", exit_statuses!()))]
pub(crate) struct PullOptions {
    /// The image: host[:port]/repository[:tag] or host[:port]/repository@digest.
    #[arg(value_name = "REFERENCE", value_parser = ImageReference::parse)]
    reference: ImageReference,
    /// Where it goes: oci:FOLDER[:NAME], oci-archive:FILE[:NAME] or docker-archive:FILE[:NAME:TAG].
    #[arg(value_name = "DESTINATION", value_parser = Location::parse)]
    destination: Location,
    #[command(flatten)]
    moves: MoveOptions,
    #[command(flatten)]
    access: AccessOptions,
}

#[derive(Debug, Args)]
#[command(after_help = concat!("Examples:\n  \
    shoal copy docker.io/library/alpine:3 localhost:15000/mirror/alpine:3\n  \
    shoal copy --referrers a.example.com/app@sha256:2c26… b.example.com/app:1\n\n\
    Nothing touches the disk. Within one registry blobs are mounted, not moved.\n\n", exit_statuses!()))]
pub(crate) struct CopyOptions {
    /// The image: a reference, or any of the forms of push and pull.
    #[arg(value_name = "FROM", value_parser = Location::parse)]
    from: Location,
    /// Where it goes: a reference, or any of the forms of push and pull.
    #[arg(value_name = "TO", value_parser = Location::parse)]
    to: Location,
    #[command(flatten)]
    moves: MoveOptions,
    #[command(flatten)]
    access: AccessOptions,
}

#[derive(Debug, Args)]
#[command(after_help = concat!("Example:\n  shoal tag registry.example.com/team/app:1.2 stable\n\n", exit_statuses!()))]
pub(crate) struct TagOptions {
    /// The image that gets another tag: host[:port]/repository[:tag] or host[:port]/repository@digest.
    #[arg(value_name = "REFERENCE", value_parser = ImageReference::parse)]
    reference: ImageReference,
    /// The tag. If there is one of that name it means this image from now on.
    #[arg(value_name = "NEWTAG", value_parser = Tag::parse)]
    tag: Tag,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    access: AccessOptions,
}

#[derive(Debug, Args)]
#[command(after_help = concat!("Examples:\n  \
    shoal delete localhost:15000/team/app:old\n  \
    shoal delete localhost:15000/team/app@sha256:2c26…\n\n\
    A digest takes all tags of the manifest with it. Blobs stay until the registry collects garbage.\n\n", exit_statuses!()))]
pub(crate) struct DeleteOptions {
    /// What is deleted: host[:port]/repository:tag or host[:port]/repository@digest.
    #[arg(value_name = "REFERENCE", value_parser = ImageReference::parse)]
    reference: ImageReference,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    access: AccessOptions,
}

/// What is printed at the end.
#[derive(Serialize)]
struct Outcome<'a> {
    from: String,
    to: String,
    #[serde(flatten)]
    copied: &'a Copied,
}

/// The end of a command that moved nothing.
#[derive(Serialize)]
struct Done {
    reference: String,
    digest: Option<String>,
}

pub(crate) async fn push(options: PushOptions) -> anyhow::Result<()> {
    if let Location::Registry(reference) = &options.source {
        bail!("{reference} is at a registry: shoal copy takes an image from one registry to another");
    }
    transfer(&options.source, &Location::Registry(options.reference), &options.moves, &options.access).await
}

pub(crate) async fn pull(options: PullOptions) -> anyhow::Result<()> {
    if let Location::Registry(reference) = &options.destination {
        bail!(
            "{reference} is no file: name oci:FOLDER, oci-archive:FILE or docker-archive:FILE, or use shoal copy from registry to registry"
        );
    }
    transfer(&Location::Registry(options.reference), &options.destination, &options.moves, &options.access)
        .await
}

pub(crate) async fn copy(options: CopyOptions) -> anyhow::Result<()> {
    transfer(&options.from, &options.to, &options.moves, &options.access).await
}

pub(crate) async fn tag(options: TagOptions) -> anyhow::Result<()> {
    let ImageReference { host, repository, .. } = &options.reference;
    let registry = options.access.registry(host, repository).await?;
    let manifest = registry.manifest(repository, &options.reference.manifest()).await?;
    let new = Reference::Tag(options.tag);
    registry.put_manifest(repository, &new, &manifest).await?;
    let reference = ImageReference { reference: Some(new), ..options.reference.clone() };
    report(options.json, &reference, Some(manifest.digest().to_string()), "is")
}

pub(crate) async fn delete(options: DeleteOptions) -> anyhow::Result<()> {
    let ImageReference { host, repository, reference } = &options.reference;
    let Some(reference) = reference else {
        bail!("{} names a whole repository: say which tag or digest to delete", options.reference);
    };
    let registry = options.access.registry(host, repository).await?;
    if !registry.delete(repository, reference).await? {
        let (what, message) = (options.reference.to_string(), String::new());
        return Err(UpstreamError::NotFound { what, message }.into());
    }
    report(options.json, &options.reference, None, "deleted")
}

fn report(json: bool, reference: &ImageReference, digest: Option<String>, word: &str) -> anyhow::Result<()> {
    let reference = reference.to_string();
    if json {
        println!("{}", serde_json::to_string(&Done { reference, digest })?);
    } else {
        println!("{reference} {word} {}", digest.as_deref().unwrap_or_default());
    }
    Ok(())
}

async fn transfer(
    from: &Location,
    to: &Location,
    moves: &MoveOptions,
    access: &AccessOptions,
) -> anyhow::Result<()> {
    let source = source(from, access).await?;
    let sink = sink(to, access).await?;
    let bars = Bars::new();
    let copied = shoal_images::copy(source.as_ref(), sink.as_ref(), &moves.options(), &bars).await;
    bars.end();
    let copied = copied.with_context(|| format!("{from} to {to}"))?;
    if moves.json {
        let outcome = Outcome { from: from.to_string(), to: to.to_string(), copied: &copied };
        println!("{}", serde_json::to_string(&outcome)?);
    } else {
        let Copied { digest, manifests, blobs, present, mounted, moved_bytes, .. } = &copied;
        println!("{to} is {digest}");
        println!(
            "{manifests} manifests and {blobs} blobs: {present} were there, {mounted} mounted, {} moved",
            ByteSize(*moved_bytes)
        );
    }
    Ok(())
}

async fn source(location: &Location, access: &AccessOptions) -> anyhow::Result<Box<dyn Source>> {
    Ok(match location {
        Location::Registry(reference) => {
            let registry = access.registry(&reference.host, &reference.repository).await?;
            Box::new(RegistrySource::new(registry, reference.repository.clone(), reference.manifest()))
        }
        Location::Layout { directory, name } => {
            Box::new(LayoutSource::folder(directory, name.clone()).await?)
        }
        Location::OciArchive { file, name } => Box::new(LayoutSource::archive(file, name.clone()).await?),
        Location::DockerArchive { file, name } => Box::new(DockerSource::open(file, name.as_deref()).await?),
    })
}

async fn sink(location: &Location, access: &AccessOptions) -> anyhow::Result<Box<dyn Sink>> {
    let parent = |file: &Path| {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        match folder.is_none_or(Path::is_dir) {
            true => Ok(()),
            false => Err(anyhow::anyhow!("{}: its folder does not exist", file.display())),
        }
    };
    Ok(match location {
        Location::Registry(reference) => {
            let registry = access.registry(&reference.host, &reference.repository).await?;
            let repository = reference.repository.clone();
            Box::new(RegistrySink::new(registry, repository, reference.manifest(), options::sessions()))
        }
        Location::Layout { directory, name } => Box::new(LayoutSink::folder(directory, name.clone()).await?),
        Location::OciArchive { file, name } => {
            parent(file)?;
            Box::new(LayoutSink::oci_archive(file, name.clone()).await?)
        }
        Location::DockerArchive { file, name } => {
            parent(file)?;
            Box::new(LayoutSink::docker_archive(file, name.clone()).await?)
        }
    })
}

/// How a script tells what kind of failure it was: 3 for what is not there, 4 for access, 5 for what may do another time.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    let by_image = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<ImageError>() {
        Some(ImageError::Upstream(error)) => Some(code_of(error)),
        _ => cause.downcast_ref::<UpstreamError>().map(code_of),
    };
    error.chain().find_map(by_image).unwrap_or(1)
}

fn code_of(error: &UpstreamError) -> u8 {
    match error {
        UpstreamError::NotFound { .. } => 3,
        UpstreamError::Denied { .. } => 4,
        error if error.is_temporary() => 5,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_failures_have_their_own_exit_codes() {
        let (what, message) = (String::new(), String::new());
        let absent = UpstreamError::NotFound { what: what.clone(), message: message.clone() };
        let wrapped = anyhow::Error::from(ImageError::from(absent)).context("x");
        assert_eq!(exit_code(&wrapped), 3);
        assert_eq!(exit_code(&UpstreamError::Denied { what: what.clone(), message }.into()), 4);
        assert_eq!(exit_code(&UpstreamError::Unreachable { what, reason: String::new() }.into()), 5);
        assert_eq!(exit_code(&anyhow::anyhow!("x")), 1);
    }
}
