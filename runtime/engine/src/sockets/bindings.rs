//! What wasmtime generates from `wit`: the traits of the interfaces that this crate implements itself.

wasmtime::component::bindgen!({
    path: "wit",
    world: "shoal:engine/sockets",
    imports: { default: trappable },
    require_store_data_send: true,
    trappable_error_type: { "wasi:sockets/network.error-code" => wasmtime_wasi::p2::SocketError },
    with: {
        "wasi:io/error": wasmtime_wasi_io::bindings::wasi::io::error,
        "wasi:io/poll": wasmtime_wasi_io::bindings::wasi::io::poll,
        "wasi:io/streams": wasmtime_wasi_io::bindings::wasi::io::streams,
        "wasi:clocks": wasmtime_wasi::p2::bindings::clocks,
        "wasi:sockets/network": wasmtime_wasi::p2::bindings::sockets::network,
        "wasi:sockets/tcp.tcp-socket": crate::sockets::tcp::TcpSocket,
        "wasi:sockets/udp.udp-socket": crate::sockets::udp::UdpSocket,
        "wasi:sockets/udp.incoming-datagram-stream": crate::sockets::udp::IncomingDatagrams,
        "wasi:sockets/udp.outgoing-datagram-stream": crate::sockets::udp::OutgoingDatagrams,
        "wasi:sockets/ip-name-lookup.resolve-address-stream": crate::sockets::names::Addresses,
    },
});
