package dev.mobilebilayer.demo

import android.content.Context
import android.os.Build
import android.os.PowerManager
import dev.mobilebilayer.core.FramePacer

/** How warm the phone says it is, as [FramePacer.heat] has it. Phones before Android 10 don't tell. */
object Heat {
    fun now(context: Context): Int = if (Build.VERSION.SDK_INT >= 29) {
        (context.getSystemService(Context.POWER_SERVICE) as PowerManager).currentThermalStatus
    } else {
        FramePacer.UNKNOWN
    }
}
