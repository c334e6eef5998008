import Metal
import MobileBilayerCore
import SwiftUI

/// What the compositor shows: one session's avatar, or nothing. For the main thread, which draws too.
@MainActor
final class Stage: ObservableObject {
    @Published private(set) var session: LiveSession?
    /// As in a mirror; for the display only.
    @Published var mirrored = false
    /// Whether anything is drawn at all: not while the app is not before all others.
    @Published private(set) var isActive = true
    /// Nil if the graphics refuse; `failure` says why.
    let compositor: MetalCompositor?
    let failure: (any Error)?

    init() {
        do {
            guard let device = MTLCreateSystemDefaultDevice() else { throw MobileBilayerError(Words.graphicsRefuse("there are none")) }
            compositor = try MetalCompositor(device: device)
            failure = nil
        } catch {
            compositor = nil
            failure = error
        }
    }

    func show(_ session: LiveSession?) {
        compositor?.setAvatar(session?.avatar)
        self.session = session
    }

    /// No frame is drawn any more; waits for what the graphics do.
    func rest() {
        isActive = false
        compositor?.finish()
    }

    func wake() { isActive = true }
}

/// The square in which an avatar lives.
struct StageView: View {
    @ObservedObject var stage: Stage

    var body: some View {
        if let compositor = stage.compositor {
            let session = stage.session
            CompositorView(
                compositor: compositor, mirrored: stage.mirrored, isActive: stage.isActive, next: { session?.pipeline.show() },
                drawn: { session?.drawn($0) }
            )
            .aspectRatio(1, contentMode: .fit)
        }
    }
}
