// Stands for UIKit, iOS 17.
@_exported import CoreGraphics
@_exported import Foundation
@_exported import QuartzCore

@MainActor
open class UIResponder: NSObject {
    public nonisolated override init() {}
}

public enum UIInterfaceOrientation: Int, Sendable {
    case unknown
    case portrait
    case portraitUpsideDown
    case landscapeLeft
    case landscapeRight
}

open class UIScene: UIResponder {}

open class UIWindowScene: UIScene {
    public var interfaceOrientation: UIInterfaceOrientation { .portrait }
}

open class UIView: UIResponder {
    public var frame = CGRect.zero
    public var bounds = CGRect.zero
    public var isHidden = false
    public var isOpaque = true
    public var layer: CALayer { CALayer() }
    public var window: UIWindow? { nil }

    public init(frame: CGRect) {}
    public required init?(coder: NSCoder) {}

    open func layoutSubviews() {}
    open func draw(_ rect: CGRect) {}
}

open class UIViewController: UIResponder {}

open class UIWindow: UIView {
    public var rootViewController: UIViewController?
    public var windowScene: UIWindowScene? { nil }

    public init(windowScene: UIWindowScene) { super.init(frame: .zero) }
    public required init?(coder: NSCoder) { nil }

    public func makeKeyAndVisible() {}
}

public struct UIBackgroundTaskIdentifier: Equatable, Sendable {
    public static let invalid = UIBackgroundTaskIdentifier()
}

open class UIApplication: UIResponder {
    public nonisolated class var didBecomeActiveNotification: NSNotification.Name { NSNotification.Name("active") }
    public nonisolated class var willResignActiveNotification: NSNotification.Name { NSNotification.Name("resign") }
    public class var shared: UIApplication { UIApplication() }
    public class var openSettingsURLString: String { "" }
    public var isIdleTimerDisabled = false
    public var connectedScenes: Set<UIScene> { [] }

    public func open(_ url: URL) {}
    public nonisolated func beginBackgroundTask(
        withName taskName: String?, expirationHandler handler: (@MainActor @Sendable () -> Void)? = nil
    ) -> UIBackgroundTaskIdentifier { .invalid }
    public nonisolated func endBackgroundTask(_ identifier: UIBackgroundTaskIdentifier) {}
}
