import Metal
import MobileBilayerCore

/// When a frame with new layers was drawn.
struct Drawn: Sendable {
    let capturedNs: Int64
    let lost: Bool
    let beganNs: Int64
    /// The graphics are done with it.
    let endedNs: Int64
}

/// Joins an avatar with a frame's layers: four textures, one triangle, and the shader of Shaders/composite.metal, which is made of
/// Android's. For a frame nothing is made but Metal's own commands: what they read and write is there, and is filled anew.
///
/// Until the first layers come the avatar is shown as it is in its photo. Numbers are those of files throughout: no format here is one
/// of sRGB, which would filter and write other numbers than GLES and the host do.
@MainActor
final class MetalCompositor {
    /// Of whatever is drawn into.
    static let pixelFormat = MTLPixelFormat.bgra8Unorm

    let device: any MTLDevice
    /// Gets each frame with new layers as well, until it is finished.
    var recorder: Recorder?
    private let queue: any MTLCommandQueue
    private let state: any MTLRenderPipelineState
    private let sampler: any MTLSamplerState
    private let pass = MTLRenderPassDescriptor()
    private var shown: Shown?
    private var last: (any MTLCommandBuffer)?

    /// Throws `MobileBilayerError` where this phone, or the app as it was built, can't draw.
    init(device: any MTLDevice) throws {
        self.device = device
        guard let queue = device.makeCommandQueue() else { throw MobileBilayerError(Words.graphicsRefuse("no command queue")) }
        guard let library = device.makeDefaultLibrary() else { throw MobileBilayerError(Words.graphicsRefuse("no shaders in the app")) }
        let descriptor = MTLRenderPipelineDescriptor()
        descriptor.vertexFunction = library.makeFunction(name: "composite_vert")
        descriptor.fragmentFunction = library.makeFunction(name: "composite_frag")
        descriptor.colorAttachments[0].pixelFormat = MetalCompositor.pixelFormat
        do {
            state = try device.makeRenderPipelineState(descriptor: descriptor)
        } catch {
            throw MobileBilayerError(Words.graphicsRefuse(error.localizedDescription), cause: error)
        }
        let linear = MTLSamplerDescriptor()  // clamped to the edge already
        linear.minFilter = .linear
        linear.magFilter = .linear
        guard let sampler = device.makeSamplerState(descriptor: linear) else {
            throw MobileBilayerError(Words.graphicsRefuse("no sampler"))
        }
        self.queue = queue
        self.sampler = sampler
        pass.colorAttachments[0].loadAction = .clear
        pass.colorAttachments[0].clearColor = MTLClearColor(red: 0, green: 0, blue: 0, alpha: 1)
        pass.colorAttachments[0].storeAction = .store
    }

    /// From now on this avatar, as it is in its photo; or nothing, which is black.
    func setAvatar(_ avatar: Avatar?) {
        guard let avatar else {
            shown = nil
            return
        }
        let still = Layers(avatar.bundle.manifest)
        let plane = still.a.floats.count / 4
        for i in (2 * plane)..<(4 * plane) { still.a.floats[i] = 1 }  // flow 0, gate 1, mask 1
        shown = Shown(device, avatar, still)
        setLayers(still)
    }

    /// New layers, for all that is drawn from now on.
    func setLayers(_ layers: Layers) { shown?.fill(layers) }

    /// One frame: the avatar as a square in the middle of `target`, as large as fits.
    ///
    /// `mirrored` as a mirror shows it: for the display of a front camera, never for what is recorded
    /// `show` is given what is on its way to the graphics, as to present a drawable, and may ask to be told of its end
    func draw(into target: any MTLTexture, mirrored: Bool, show: (any MTLCommandBuffer) -> Void) {
        pass.colorAttachments[0].texture = target
        guard let commands = queue.makeCommandBuffer(), let encoder = commands.makeRenderCommandEncoder(descriptor: pass) else { return }
        if let shown {
            let sidePx = min(target.width, target.height)
            encoder.setViewport(
                MTLViewport(
                    originX: Double((target.width - sidePx) / 2), originY: Double((target.height - sidePx) / 2), width: Double(sidePx),
                    height: Double(sidePx), znear: 0, zfar: 1))
            encoder.setRenderPipelineState(state)
            var display: UInt32 = mirrored ? 1 : 0
            encoder.setVertexBytes(&display, length: MemoryLayout<UInt32>.size, index: 0)
            encoder.setFragmentTexture(shown.avatar, index: 0)
            encoder.setFragmentTexture(shown.background, index: 1)
            encoder.setFragmentTexture(shown.layers.a, index: 2)
            encoder.setFragmentTexture(shown.layers.b, index: 3)
            for unit in 0..<4 { encoder.setFragmentSamplerState(sampler, index: unit) }
            encoder.drawPrimitives(type: .triangle, vertexStart: 0, vertexCount: 3)
        }
        encoder.endEncoding()
        pass.colorAttachments[0].texture = nil
        show(commands)
        commands.commit()
        shown?.layers.reader = commands
        last = commands
    }

    /// Wait until the graphics did all that they were given: before the app leaves the screen, behind which they may do nothing.
    func finish() {
        last?.waitUntilCompleted()
        last = nil
    }
}

/// An avatar in textures. Layers have three of each, so that none is filled anew while the graphics still read it.
@MainActor
private final class Shown {
    /// Textures of one frame's layers, and the last commands that read them.
    struct LayerTextures {
        let a: any MTLTexture
        let b: any MTLTexture
        var reader: (any MTLCommandBuffer)?
    }

    let avatar: any MTLTexture
    let background: any MTLTexture
    private var ring: [LayerTextures] = []
    private var at = 0
    private let texelsA: HalfTexels
    private let texelsB: HalfTexels

    /// nil where there is no memory for them.
    init?(_ device: any MTLDevice, _ avatar: Avatar, _ layers: Layers) {
        let (aPx, bPx) = (layers.a.shape[3], layers.b.shape[3])
        texelsA = HalfTexels(channels: 4, sidePx: aPx)
        texelsB = HalfTexels(channels: 3, sidePx: bPx)
        guard let photo = Shown.texture(device, avatar.texture), let behind = Shown.texture(device, avatar.background) else { return nil }
        self.avatar = photo
        background = behind
        for _ in 0..<3 {
            guard let a = Shown.texture(device, .rgba16Float, aPx), let b = Shown.texture(device, .rgba16Float, bPx) else { return nil }
            ring.append(LayerTextures(a: a, b: b))
        }
    }

    var layers: LayerTextures {
        get { ring[at] }
        set { ring[at] = newValue }
    }

    func fill(_ new: Layers) {
        at = (at + 1) % ring.count
        layers.reader?.waitUntilCompleted()  // it was three frames ago: there is next to nothing to wait for
        layers.reader = nil
        texelsA.fill(layers.a, new.a.floats)
        texelsB.fill(layers.b, new.b.floats)
    }

    private static func texture(_ device: any MTLDevice, _ format: MTLPixelFormat, _ sidePx: Int) -> (any MTLTexture)? {
        let descriptor = MTLTextureDescriptor.texture2DDescriptor(pixelFormat: format, width: sidePx, height: sidePx, mipmapped: false)
        descriptor.usage = .shaderRead
        return device.makeTexture(descriptor: descriptor)
    }

    /// A picture, first row first. Metal has no texture of three channels.
    private static func texture(_ device: any MTLDevice, _ picture: RgbImage) -> (any MTLTexture)? {
        guard let texture = texture(device, .rgba8Unorm, picture.width) else { return nil }
        var rgba = [UInt8](repeating: 255, count: 4 * picture.width * picture.height)
        for i in 0..<(picture.width * picture.height) {
            for c in 0..<3 { rgba[4 * i + c] = picture.pixels[3 * i + c] }
        }
        fillTexture(texture, picture.width, rgba)
        return texture
    }
}

/// Layers as half floats, of which Metal filters textures on every phone; it converts nothing by itself, as GLES does.
private final class HalfTexels {
    private let texels: Texels
    private var halves: [Float16]

    init(channels: Int, sidePx: Int) {
        texels = Texels(channels: channels, sidePx: sidePx, padded: true)
        halves = [Float16](repeating: 0, count: 4 * sidePx * sidePx)
    }

    func fill(_ texture: any MTLTexture, _ planes: [Float]) {
        texels.of(planes) { floats in
            halves.withUnsafeMutableBufferPointer { halves in
                for i in floats.indices { halves[i] = Float16(floats[i]) }
            }
        }
        fillTexture(texture, texels.sidePx, halves)
    }
}

/// All of a square texture of four channels, row by row.
private func fillTexture<Number>(_ texture: any MTLTexture, _ sidePx: Int, _ values: [Number]) {
    let bytesPerRow = 4 * sidePx * MemoryLayout<Number>.stride
    values.withUnsafeBytes { bytes in
        guard let begin = bytes.baseAddress else { return }
        texture.replace(region: MTLRegionMake2D(0, 0, sidePx, sidePx), mipmapLevel: 0, withBytes: begin, bytesPerRow: bytesPerRow)
    }
}
