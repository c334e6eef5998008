// Stands for Apple's QuartzCore, iOS 17: the pictures that a screen's layer lends to be drawn into.
@_exported import Metal

public protocol CAMetalDrawable: MTLDrawable {
    var texture: any MTLTexture { get }
}
