// Stands for XCTest, Xcode 16: what Linux' lacks of it. Compiled along with the tests.
import XCTest

class XCTAttachment {
    enum Lifetime: Int {
        case keepAlways
        case deleteOnSuccess
    }

    var name: String?
    var lifetime = Lifetime.deleteOnSuccess

    init(data payload: Data, uniformTypeIdentifier identifier: String) {}
}

extension XCTestCase {
    /// Of XCTActivity.
    func add(_ attachment: XCTAttachment) {}
}
