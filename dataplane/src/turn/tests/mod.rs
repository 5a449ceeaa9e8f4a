mod authentication;
mod lifetimes;
mod limits;
mod relays;
mod world;
