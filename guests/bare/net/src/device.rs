//! virtio-net as a device of smoltcp.
//!
//! Frames lie in buffers that are allocated once. A received frame is read where the device put it, a frame to send is
//! written where the device will read it; nothing is copied. The queues are not kicked either: the device asks for no
//! notification, and the doorbell serves them all.

use crate::hal::Identity;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::RefCell;
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::pci::PciTransport;

/// Entries of a queue; each frame takes one.
const QUEUE: usize = 256;
/// Receive buffers. All of them are used in turn, so each is half a page that is dirty at every snapshot: enough for two
/// bursts of 64 frames, not for every entry of the queue.
const RECEIVE_BUFFERS: usize = 128;
/// An Ethernet frame with an IP packet of 1500 bytes.
const FRAME_MAX: usize = 1514;

/// Room for a virtio header and a frame; two of them fill a page.
#[repr(C, align(2048))]
struct Buffer([u8; 2048]);

impl Buffer {
    fn new() -> Box<Self> {
        Box::new(Self([0; 2048]))
    }
}

/// A buffer and the range of its bytes that is the frame.
struct Frame {
    buffer: Box<Buffer>,
    start: usize,
    end: usize,
}

/// The driver and its buffers. A buffer that the device works on waits under the token of the request.
struct Driver {
    virtio: VirtIONetRaw<Identity, PciTransport, QUEUE>,
    receiving: [Option<Box<Buffer>>; QUEUE],
    transmitting: [Option<Frame>; QUEUE],
    /// Buffers to send from. Last in, first out, so that few of them are ever touched.
    #[expect(clippy::vec_box, reason = "the device knows them by their addresses")]
    free: Vec<Box<Buffer>>,
}

impl Driver {
    fn new(transport: PciTransport) -> Self {
        let virtio = match VirtIONetRaw::new(transport) {
            Ok(virtio) => virtio,
            Err(error) => panic!("the network device does not start: {error}"),
        };
        let mut driver = Self {
            virtio,
            receiving: [const { None }; QUEUE],
            transmitting: [const { None }; QUEUE],
            free: (0..QUEUE).map(|_| Buffer::new()).collect(),
        };
        for _ in 0..RECEIVE_BUFFERS {
            driver.offer(Buffer::new());
        }
        driver
    }

    /// Gives the device a buffer to receive into.
    fn offer(&mut self, mut buffer: Box<Buffer>) {
        // SAFETY: the buffer stays untouched in `receiving` until the device returns its token.
        let token = unsafe { self.virtio.receive_begin(&mut buffer.0) };
        let token = token.expect("there are fewer buffers than entries");
        self.receiving[usize::from(token)] = Some(buffer);
    }

    /// Takes the next frame that the device has received.
    fn take(&mut self) -> Option<Frame> {
        let token = self.virtio.poll_receive()?;
        let mut buffer =
            self.receiving[usize::from(token)].take().expect("the device returns what it was given");
        // SAFETY: this is the buffer that was given for this token.
        let received = unsafe { self.virtio.receive_complete(token, &mut buffer.0) };
        let (header, length) = received.expect("a received frame has a header");
        Some(Frame { buffer, start: header, end: header + length })
    }

    /// Hands a frame of `length` bytes, which `fill` writes, to the device. There must be a free buffer.
    fn send<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut buffer = self.free.pop().expect("tokens are given only while there is a free buffer");
        let start = self.virtio.fill_buffer_header(&mut buffer.0).expect("the buffer holds a header");
        let end = start + length;
        let result = fill(&mut buffer.0[start..end]);
        // SAFETY: the buffer stays untouched in `transmitting` until the device returns its token.
        let token = unsafe { self.virtio.transmit_begin(&buffer.0[..end]) };
        let token = token.expect("there are as many buffers as entries");
        self.transmitting[usize::from(token)] = Some(Frame { buffer, start, end });
        result
    }

    /// Takes back the buffers of all frames that the device has sent.
    fn reclaim(&mut self) {
        while let Some(token) = self.virtio.poll_transmit() {
            let frame =
                self.transmitting[usize::from(token)].take().expect("the device returns what it was given");
            // SAFETY: these are the bytes that were given for this token.
            let sent = unsafe { self.virtio.transmit_complete(token, &frame.buffer.0[..frame.end]) };
            sent.expect("the token was the next one");
            self.free.push(frame.buffer);
        }
    }
}

/// The network device. The cell is there because smoltcp holds a token to receive and one to send at the same time.
pub(crate) struct Device(RefCell<Driver>);

impl Device {
    /// The machine's network device, if it has one.
    pub(crate) fn find() -> Option<Self> {
        Some(Self(RefCell::new(Driver::new(crate::pci::network()?))))
    }

    /// The hardware address that the machine gave.
    pub(crate) fn address(&mut self) -> EthernetAddress {
        EthernetAddress(self.0.get_mut().virtio.mac_address())
    }

    /// Whether there is a frame to receive.
    pub(crate) fn has_received(&mut self) -> bool {
        self.0.get_mut().virtio.poll_receive().is_some()
    }

    /// To be called after each doorbell.
    pub(crate) fn reclaim(&mut self) {
        self.0.get_mut().reclaim();
    }
}

impl phy::Device for Device {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, now: Instant) -> Option<(Received<'_>, Room<'_>)> {
        // A frame may need an answer, so without room for one it waits in the queue.
        self.transmit(now)?;
        let frame = self.0.get_mut().take()?;
        let device = &self.0;
        Some((Received { device, frame }, Room { device }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        (!self.0.get_mut().free.is_empty()).then_some(Room { device: &self.0 })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_MAX;
        capabilities
    }
}

/// A received frame.
pub(crate) struct Received<'a> {
    device: &'a RefCell<Driver>,
    frame: Frame,
}

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        let Frame { buffer, start, end } = self.frame;
        let result = read(&buffer.0[start..end]);
        self.device.borrow_mut().offer(buffer);
        result
    }
}

/// Room for one frame to send.
pub(crate) struct Room<'a> {
    device: &'a RefCell<Driver>,
}

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        self.device.borrow_mut().send(length, fill)
    }
}
