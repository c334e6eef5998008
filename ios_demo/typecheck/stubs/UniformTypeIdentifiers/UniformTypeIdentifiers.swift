// Stands for UniformTypeIdentifiers, iOS 17.
public struct UTType: Hashable, Sendable {
    public init(exportedAs identifier: String) {}
}
