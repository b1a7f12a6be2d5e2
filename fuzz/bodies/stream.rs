//! A hostile peer's stream against one queue pair: nothing is placed where it may not be, nothing gets lost.

pub(crate) fn run(data: &[u8]) {
    rdmacm_gluster::iwarp::qp::fuzzing::stream(data).unwrap();
}
