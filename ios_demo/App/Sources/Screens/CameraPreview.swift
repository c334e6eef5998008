import AVFoundation
import MobileBilayerCore
import SwiftUI
import UIKit

/// The camera's picture, small; mirrored if it is the front one's, which AVFoundation does for a preview. What is looked at never is.
struct CameraPreview: UIViewRepresentable {
    let session: AVCaptureSession
    let facing: Facing
    /// Told when the display was turned: as `Orientation.displayDegrees`.
    let onTurn: @MainActor (Int) -> Void

    func makeUIView(context: Context) -> PreviewView {
        let view = PreviewView(frame: .zero)
        view.preview.session = session
        view.preview.videoGravity = .resizeAspectFill
        return view
    }

    func updateUIView(_ view: PreviewView, context: Context) {
        view.facing = facing
        view.onTurn = onTurn
        view.turn()
    }
}

/// A view whose layer is the preview.
final class PreviewView: UIView {
    let preview = AVCaptureVideoPreviewLayer()
    var facing = Facing.front
    var onTurn: @MainActor (Int) -> Void = { _ in }
    private var degrees: Int?

    override init(frame: CGRect) {
        super.init(frame: frame)
        layer.addSublayer(preview)
    }

    required init?(coder: NSCoder) { nil }  // there is no storyboard

    override func layoutSubviews() {
        super.layoutSubviews()
        preview.frame = bounds
        turn()
    }

    /// Follow the display, and tell of it.
    func turn() {
        guard let orientation = window?.windowScene?.interfaceOrientation else { return }
        let now = PreviewView.degrees(orientation)
        if let connection = preview.connection {
            let angle = CGFloat(CameraSource.rotation(facing, displayDegrees: now))
            if connection.isVideoRotationAngleSupported(angle) { connection.videoRotationAngle = angle }
        }
        if now == degrees { return }
        degrees = now
        onTurn(now)
    }

    /// By how much the display is turned, as `Orientation.displayDegrees`: landscapeRight has the phone's top to the left.
    private static func degrees(_ orientation: UIInterfaceOrientation) -> Int {
        switch orientation {
        case .landscapeRight: 90
        case .portraitUpsideDown: 180
        case .landscapeLeft: 270
        default: 0
        }
    }
}
