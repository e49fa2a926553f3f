//! What wasmtime generates from `wit/0.3`: the traits of the interfaces that this crate implements itself.

wasmtime::component::bindgen!({
    path: "wit/0.3",
    world: "shoal:engine/sockets",
    imports: {
        "wasi:sockets/types.[method]tcp-socket.listen": store | trappable,
        "wasi:sockets/types.[method]tcp-socket.send": store | trappable,
        "wasi:sockets/types.[method]tcp-socket.receive": store | trappable,
        default: trappable,
    },
    require_store_data_send: true,
    trappable_error_type: { "wasi:sockets/types.error-code" => crate::sockets::concurrent::SocketError },
    with: {
        "wasi:clocks": wasmtime_wasi::p3::bindings::clocks,
        "wasi:sockets/types.tcp-socket": crate::sockets::concurrent::TcpSocket,
        "wasi:sockets/types.udp-socket": crate::sockets::concurrent::UdpSocket,
    },
});
