//! The summary as a picture: a bar for each goal, as long as the part of what is allowed that was used.
