/// Backends as manifests name them, to the names of what runs them: Core ML itself, or what ExecuTorch registers. The best first.
public let backends: [(backend: String, registered: String)] = [
    (coreMl, "CoreML"), ("coreml-delegate", "CoreMLBackend"), ("xnnpack", "XnnpackBackend"),
]

/// What runs on this phone, of the bundles that came with the app.
public struct BundleChoice<T> {
    public let bundle: ModelBundle
    public let running: T
    /// For people: why each better bundle is not the one.
    public let notes: [String]

    /// The best of `bundles` that works: one whose backend is in the app (`registered`: "CoreML", and ExecuTorch's names), and that
    /// `start` can start; it is asked in order, and throws `MobileBilayerError` where one does not.
    ///
    /// A backend's library that the linker stripped is named here. Throws `MobileBilayerError` that tells of all if none works.
    public static func choose(
        _ bundles: [ModelBundle], registered: Set<String>, start: (ModelBundle) throws -> T
    ) throws -> BundleChoice<T> {
        var notes: [String] = []
        func place(_ bundle: ModelBundle) -> Int {
            backends.firstIndex { $0.backend == bundle.manifest.backend } ?? backends.count
        }
        for bundle in bundles.sorted(by: { place($0) < place($1) }) {
            let (name, backend) = (bundle.manifest.name, bundle.manifest.backend)
            let wanted = backends.first { $0.backend == backend }?.registered
            guard let wanted, registered.contains(wanted) else {
                let has = registered.sorted().joined(separator: ", ")
                notes.append("\(name): this app has no \(wanted ?? backend) (it has \(has)). Link it with -force_load.")
                continue
            }
            do {
                return BundleChoice(bundle: bundle, running: try start(bundle), notes: notes)
            } catch let error as MobileBilayerError {
                notes.append("\(name): \(error.message)")
            }
        }
        let why = notes.isEmpty ? "There is none." : notes.joined(separator: " ")
        throw MobileBilayerError("No bundle runs on this phone. \(why) Put one for coreml or xnnpack into the app, and build it again.")
    }
}
