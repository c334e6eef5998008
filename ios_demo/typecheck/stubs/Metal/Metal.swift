// Stands for Apple's Metal, iOS 17: what the compositor draws by, after its documentation. Nothing of it draws.
import Foundation

public enum MTLPixelFormat: UInt, Sendable {
    case invalid = 0
    case rgba8Unorm = 70
    case bgra8Unorm = 80
    case rgba16Float = 115
}

public struct MTLTextureUsage: OptionSet, Sendable {
    public let rawValue: UInt
    public init(rawValue: UInt) { self.rawValue = rawValue }
    public static let shaderRead = MTLTextureUsage(rawValue: 1)
    public static let renderTarget = MTLTextureUsage(rawValue: 4)
}

public enum MTLSamplerMinMagFilter: UInt, Sendable { case nearest, linear }
public enum MTLLoadAction: UInt, Sendable { case dontCare, load, clear }
public enum MTLStoreAction: UInt, Sendable { case dontCare, store }
public enum MTLPrimitiveType: UInt, Sendable { case point, line, lineStrip, triangle, triangleStrip }
public enum MTLCommandBufferStatus: UInt, Sendable { case notEnqueued, enqueued, committed, scheduled, completed, error }

public struct MTLClearColor: Sendable {
    public init(red: Double, green: Double, blue: Double, alpha: Double) {}
}

public struct MTLViewport: Sendable {
    public init(originX: Double, originY: Double, width: Double, height: Double, znear: Double, zfar: Double) {}
}

public struct MTLRegion: Sendable {}

public func MTLRegionMake2D(_ x: Int, _ y: Int, _ width: Int, _ height: Int) -> MTLRegion { MTLRegion() }

public func MTLCreateSystemDefaultDevice() -> (any MTLDevice)? { nil }

// Apple says of devices alone that threads may share them.
public protocol MTLDevice: AnyObject, Sendable {
    var name: String { get }
    func makeCommandQueue() -> (any MTLCommandQueue)?
    func makeDefaultLibrary() -> (any MTLLibrary)?
    func makeRenderPipelineState(descriptor: MTLRenderPipelineDescriptor) throws -> any MTLRenderPipelineState
    func makeSamplerState(descriptor: MTLSamplerDescriptor) -> (any MTLSamplerState)?
    func makeTexture(descriptor: MTLTextureDescriptor) -> (any MTLTexture)?
}

public protocol MTLCommandQueue: AnyObject {
    func makeCommandBuffer() -> (any MTLCommandBuffer)?
}

public protocol MTLCommandBuffer: AnyObject {
    var status: MTLCommandBufferStatus { get }
    var error: (any Error)? { get }
    func makeRenderCommandEncoder(descriptor: MTLRenderPassDescriptor) -> (any MTLRenderCommandEncoder)?
    func present(_ drawable: any MTLDrawable)
    func addCompletedHandler(_ block: @escaping (any MTLCommandBuffer) -> Void)
    func commit()
    func waitUntilCompleted()
}

public protocol MTLRenderCommandEncoder: AnyObject {
    func setRenderPipelineState(_ state: any MTLRenderPipelineState)
    func setViewport(_ viewport: MTLViewport)
    func setVertexBytes(_ bytes: UnsafeRawPointer, length: Int, index: Int)
    func setFragmentTexture(_ texture: (any MTLTexture)?, index: Int)
    func setFragmentSamplerState(_ sampler: (any MTLSamplerState)?, index: Int)
    func drawPrimitives(type: MTLPrimitiveType, vertexStart: Int, vertexCount: Int)
    func endEncoding()
}

public protocol MTLLibrary: AnyObject {
    func makeFunction(name: String) -> (any MTLFunction)?
}

public protocol MTLFunction: AnyObject {}
public protocol MTLRenderPipelineState: AnyObject {}
public protocol MTLSamplerState: AnyObject {}
public protocol MTLDrawable: AnyObject {}

public protocol MTLTexture: AnyObject {
    var width: Int { get }
    var height: Int { get }
    func replace(region: MTLRegion, mipmapLevel: Int, withBytes: UnsafeRawPointer, bytesPerRow: Int)
    func getBytes(_ bytes: UnsafeMutableRawPointer, bytesPerRow: Int, from region: MTLRegion, mipmapLevel: Int)
}

open class MTLTextureDescriptor: NSObject {
    open class func texture2DDescriptor(
        pixelFormat: MTLPixelFormat, width: Int, height: Int, mipmapped: Bool
    ) -> MTLTextureDescriptor { MTLTextureDescriptor() }
    open var usage: MTLTextureUsage = .shaderRead
}

open class MTLSamplerDescriptor: NSObject {
    // Addresses are clamped to the edge where nothing is said.
    open var minFilter: MTLSamplerMinMagFilter = .nearest
    open var magFilter: MTLSamplerMinMagFilter = .nearest
}

open class MTLRenderPipelineColorAttachmentDescriptor: NSObject {
    open var pixelFormat: MTLPixelFormat = .invalid
}

open class MTLRenderPipelineColorAttachmentDescriptorArray: NSObject {
    open subscript(index: Int) -> MTLRenderPipelineColorAttachmentDescriptor! {
        get { MTLRenderPipelineColorAttachmentDescriptor() }
        set {}
    }
}

open class MTLRenderPipelineDescriptor: NSObject {
    open var vertexFunction: (any MTLFunction)?
    open var fragmentFunction: (any MTLFunction)?
    open var colorAttachments: MTLRenderPipelineColorAttachmentDescriptorArray! { MTLRenderPipelineColorAttachmentDescriptorArray() }
}

open class MTLRenderPassColorAttachmentDescriptor: NSObject {
    open var texture: (any MTLTexture)?
    open var loadAction: MTLLoadAction = .dontCare
    open var storeAction: MTLStoreAction = .dontCare
    open var clearColor = MTLClearColor(red: 0, green: 0, blue: 0, alpha: 1)
}

open class MTLRenderPassColorAttachmentDescriptorArray: NSObject {
    open subscript(index: Int) -> MTLRenderPassColorAttachmentDescriptor! {
        get { MTLRenderPassColorAttachmentDescriptor() }
        set {}
    }
}

open class MTLRenderPassDescriptor: NSObject {
    open var colorAttachments: MTLRenderPassColorAttachmentDescriptorArray! { MTLRenderPassColorAttachmentDescriptorArray() }
}
