// Stands for PhotosUI, iOS 17: the system's picker.
import Foundation
import SwiftUI

public struct PHPickerFilter: Sendable {
    public static let images = PHPickerFilter()
}

public struct PhotosPickerItem: Equatable, Hashable, Sendable {
    public func loadTransferable<T: Sendable>(type: T.Type) async throws -> T? { nil }
}

@MainActor
public struct PhotosPicker<Label: View>: View {
    public init<S: StringProtocol>(_ title: S, selection: Binding<PhotosPickerItem?>, matching filter: PHPickerFilter? = nil)
    where Label == Text {}

    public var body: Never { fatalError() }
}
