// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "MobileBilayerCore",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [.library(name: "MobileBilayerCore", targets: ["MobileBilayerCore"])],
    targets: [
        // The same file as mobile_bilayer/assets has: a test compares them.
        .target(name: "MobileBilayerCore", resources: [.copy("Resources/face_template.safetensors")]),
        .target(name: "CountAllocations", path: "Tests/CountAllocations"),
        .testTarget(name: "MobileBilayerCoreTests", dependencies: ["MobileBilayerCore", "CountAllocations"]),
    ]
)
