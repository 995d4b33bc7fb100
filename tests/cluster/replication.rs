//! Replication to other clusters: both ways, through cuts and kills, and never a tag whose image is not all there.

mod both_ways;
mod broken;
mod relay;
mod whole;
