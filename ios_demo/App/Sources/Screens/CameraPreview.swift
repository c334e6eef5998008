import AVFoundation
import MobileBilayerCore
import SwiftUI
import UIKit

/// The camera's picture, small; mirrored if it is the front one's, which AVFoundation does for a preview. What is looked at never is.
struct CameraPreview: UIViewRepresentable {
    let session: AVCaptureSession
    let facing: Facing
    /// Told when the display was turned, or another camera lies otherwise: by how many degrees clockwise its frames are to be turned.
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

/// A view that holds the preview. It knows how the camera's picture is to be turned: sensors lie otherwise in newer iPhones and iPads than
/// in older ones, and AVFoundation tells it for a preview that is on the screen.
final class PreviewView: UIView {
    let preview = AVCaptureVideoPreviewLayer()
    var facing = Facing.front
    var onTurn: @MainActor (Int) -> Void = { _ in }
    private var coordinator: AVCaptureDevice.RotationCoordinator?
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
        guard window != nil, let device = CameraSource.device(facing) else { return }
        if coordinator?.device !== device { coordinator = AVCaptureDevice.RotationCoordinator(device: device, previewLayer: preview) }
        guard let angle = coordinator?.videoRotationAngleForHorizonLevelPreview else { return }
        if let connection = preview.connection, connection.isVideoRotationAngleSupported(angle) { connection.videoRotationAngle = angle }
        let now = Int(angle.rounded())
        if now == degrees || now % 90 != 0 { return }
        degrees = now
        onTurn(now % 360)
    }
}
