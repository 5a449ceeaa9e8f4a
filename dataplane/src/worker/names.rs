//! What things are called by those who talk to this worker: control's ids, ICE user fragments, network paths.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use ringmain_shared::id::{SubscriptionId, TrackId, TransportId};

use crate::forward::subscription::SubscriptionKey;
use crate::forward::track::TrackKey;
use crate::io::Path;
use crate::transport::TransportKey;

/// Every name and the slot it stands for.
#[derive(Debug, Default)]
pub struct Names {
    /// Transports by control's id.
    pub transports: HashMap<TransportId, TransportKey, RandomState>,
    /// Tracks by control's id.
    pub tracks: HashMap<TrackId, TrackKey, RandomState>,
    /// Subscriptions by control's id.
    pub subscriptions: HashMap<SubscriptionId, SubscriptionKey, RandomState>,
    /// Transports by our ICE user fragment.
    pub ufrags: HashMap<String, TransportKey, RandomState>,
    /// Transports by the number in our STUN transaction ids.
    pub numbers: HashMap<u32, TransportKey, RandomState>,
    /// Transports by the path that their datagrams take.
    pub paths: HashMap<Path, TransportKey, RandomState>,
    /// The last number given out.
    pub last_number: u32,
}
