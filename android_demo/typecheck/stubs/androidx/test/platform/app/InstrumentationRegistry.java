// Stands for androidx.test:monitor:1.8.0: no more of it than the app uses.
package androidx.test.platform.app;

import android.app.Instrumentation;
import android.os.Bundle;

public final class InstrumentationRegistry {
    public static Instrumentation getInstrumentation() { throw new RuntimeException(); }

    public static Bundle getArguments() { throw new RuntimeException(); }
}
