//! Connections and streams on which time stands still.
