import MetalKit
import MobileBilayerCore
import SwiftUI

/// Shows what a compositor draws: black, and the avatar as a square in its middle, as large as fits.
///
/// `next` is asked for new layers as often as the screen is drawn, sixty times a second at most; where there are none, what is on the
/// screen stays there, and the graphics rest. `drawn` is told of each frame with new layers, on a thread of Metal's.
struct CompositorView: UIViewRepresentable {
    let compositor: MetalCompositor
    /// As a mirror shows it: for the display of a front camera alone.
    let mirrored: Bool
    /// Whether to draw: false as long as the app is not on the screen.
    var isActive = true
    let next: @MainActor () -> Layers?
    let drawn: @Sendable (Drawn) -> Void

    init(
        compositor: MetalCompositor, mirrored: Bool, isActive: Bool = true, next: @escaping @MainActor () -> Layers?,
        drawn: @escaping @Sendable (Drawn) -> Void
    ) {
        self.compositor = compositor
        self.mirrored = mirrored
        self.isActive = isActive
        self.next = next
        self.drawn = drawn
    }

    func makeUIView(context: Context) -> CompositorMetalView {
        let view = CompositorMetalView(frame: .zero, device: compositor.device)
        view.colorPixelFormat = MetalCompositor.pixelFormat
        view.framebufferOnly = true
        view.preferredFramesPerSecond = 60
        view.isOpaque = true
        return view
    }

    func updateUIView(_ view: CompositorMetalView, context: Context) { view.show(self) }

    static func dismantleUIView(_ view: CompositorMetalView, coordinator: ()) { view.stop() }
}

/// Metal's own view, which draws when its display link says so, on the main thread.
final class CompositorMetalView: MTKView {
    private var content: CompositorView?
    private var drawnSize = CGSize.zero
    private var toDraw = true

    func show(_ content: CompositorView) {
        if !content.isActive { return stop() }
        self.content = content
        toDraw = true  // the avatar may be another one, or mirrored now
        isPaused = false
    }

    /// Nothing is drawn any more, and all that was is done.
    func stop() {
        isPaused = true
        content?.compositor.finish()
        content = nil
    }

    override func draw(_ rect: CGRect) {
        guard let content else { return }
        let beganNs = nowNs()
        let layers = content.next()
        let compositor = content.compositor
        if let layers {
            compositor.setLayers(layers)
            toDraw = true
        }
        guard toDraw || drawnSize != drawableSize, let drawable = currentDrawable else { return }
        toDraw = false
        drawnSize = drawableSize
        compositor.draw(into: drawable.texture, mirrored: content.mirrored) { commands in
            commands.present(drawable)
            guard let layers else { return }
            let (capturedNs, lost, drawn) = (layers.capturedNs, layers.lost, content.drawn)
            // Sendable, or Swift would take it for one of the main thread's, and stop the app where it is not called there.
            commands.addCompletedHandler { @Sendable _ in
                drawn(Drawn(capturedNs: capturedNs, lost: lost, beganNs: beganNs, endedNs: nowNs()))
            }
        }
        if let layers { compositor.recorder?.append(from: compositor, capturedNs: layers.capturedNs) }
    }
}
