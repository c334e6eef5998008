package dev.mobilebilayer.demo

import android.Manifest
import android.content.Intent
import android.graphics.BitmapFactory
import android.os.ParcelFileDescriptor
import androidx.test.core.app.ActivityScenario
import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import dev.mobilebilayer.core.Avatar
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith

/** On a phone or an emulator: does what is in the app work together? */
@RunWith(AndroidJUnit4::class)
class SmokeTest {
    private val context = InstrumentationRegistry.getInstrumentation().targetContext

    @Test
    fun thisPhoneComputesTheGoldenVectors() {
        val bundle = Models.choice(context).bundle
        Models.network(context).use { network ->
            val errors = bundle.verify(network)
            assertTrue("only $errors", errors.size >= 8)
        }
    }

    @Test
    fun anAvatarOfAPhotoIsMadeAndReadAgain() {
        val content = asset(context, "portraits/${Avatars.FIRST}.jpg")!!
        val photo = BitmapFactory.decodeByteArray(content, 0, content.size)
        val landmarks = FaceTracker.find(context, photo)!!
        val bundle = Models.choice(context).bundle
        val avatar = Models.network(context).use { bundle.avatar(rgbOf(photo), landmarks, it) }
        val back = Avatar.load(avatar.save(), "it", bundle)
        assertEquals(avatar.texture.pixels.toList(), back.texture.pixels.toList())
        // Near to what a desktop made of the same photo, which came along.
        val theirs = Avatars.load(context, Avatars.FIRST)
        fun level(of: Avatar, i: Int) = of.texture.pixels[i].toInt() and 255
        val apart = theirs.texture.pixels.indices.sumOf { i -> Math.abs(level(theirs, i) - level(avatar, i)) }
        assertTrue("$apart", apart.toDouble() / theirs.texture.pixels.size < 8)
    }

    @Test
    fun aPortraitDrivesItself() {
        val errors = ArrayList<Exception>()
        val avatar = Avatars.load(context, Avatars.FIRST)
        var drawn = 0
        LiveSession(context, avatar, { drawn++ }, { errors += it }).use { session ->
            PortraitSource(context, session) { errors += it }.use { Thread.sleep(5000) }
        }
        errors.firstOrNull()?.let { throw it }
        assertTrue("$drawn frames", drawn > 20)
    }

    private fun ActivityScenario<LiveActivity>.waitUntilLive() {
        var isLive = false
        val until = System.currentTimeMillis() + 30_000
        while (!isLive && System.currentTimeMillis() < until) {
            Thread.sleep(100)
            onActivity { isLive = it.isLive }
        }
        assertTrue("live mode does not start", isLive)
    }

    @Test
    fun liveModeStartsTurnsAndStartsASecondTime() {
        val instrumentation = InstrumentationRegistry.getInstrumentation()
        val granted = instrumentation.uiAutomation.executeShellCommand("pm grant ${context.packageName} ${Manifest.permission.CAMERA}")
        ParcelFileDescriptor.AutoCloseInputStream(granted).use { it.readBytes() } // until it is done
        repeat(2) {
            ActivityScenario.launch<LiveActivity>(Intent(context, LiveActivity::class.java)).use { scenario ->
                scenario.waitUntilLive()
                scenario.recreate()
                scenario.waitUntilLive()
            }
        }
    }
}
