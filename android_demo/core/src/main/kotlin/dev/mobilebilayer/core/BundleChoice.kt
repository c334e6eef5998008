package dev.mobilebilayer.core

/**
 * What runs on this phone, of the bundles that came with the app.
 *
 * [notes] for people: why each better bundle is not the one
 */
class BundleChoice<T : Any>(val bundle: Bundle, val running: T, val notes: List<String>) {
    companion object {
        /** Backends as manifests name them, to the names under which ExecuTorch registers them; the best first. */
        val BACKENDS: Map<String, String> = linkedMapOf(
            "qnn" to "QnnBackend",
            "vulkan" to "VulkanBackend",
            "xnnpack" to "XnnpackBackend",
        )

        /**
         * The best of [bundles] that works: one whose backend is in the runtime ([registered], by the runtime's names), and that
         * [start] can start; it is asked in order, and raises [MobileBilayerError] where one does not.
         *
         * Raises [MobileBilayerError] that tells of all of them if none works.
         */
        fun <T : Any> choose(bundles: List<Bundle>, registered: Set<String>, start: (Bundle) -> T): BundleChoice<T> {
            val notes = ArrayList<String>()
            val order = BACKENDS.keys.toList()
            for (bundle in bundles.sortedBy { order.indexOf(it.manifest.backend).let { at -> if (at < 0) order.size else at } }) {
                val backend = bundle.manifest.backend
                val name = BACKENDS[backend]
                if (name == null || name !in registered) {
                    notes += "${bundle.manifest.name}: this app's runtime has no $backend (it has ${registered.sorted().joinToString()})."
                    continue
                }
                try {
                    return BundleChoice(bundle, start(bundle), notes)
                } catch (error: MobileBilayerError) {
                    notes += "${bundle.manifest.name}: ${error.message}"
                }
            }
            val why = if (notes.isEmpty()) "There is none." else notes.joinToString(" ")
            throw MobileBilayerError("No bundle runs on this phone. $why Put one for xnnpack among the app's assets, and build it again.")
        }
    }
}
