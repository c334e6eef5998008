// Stands for UniformTypeIdentifiers, iOS 16.
public struct UTType: Hashable, Sendable {
    public init(exportedAs identifier: String) {}
}
