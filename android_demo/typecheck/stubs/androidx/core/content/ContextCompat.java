// Stands for androidx.core:core:1.17.0: no more of it than the app uses.
package androidx.core.content;

import android.content.Context;
import java.util.concurrent.Executor;

public class ContextCompat {
    public static Executor getMainExecutor(Context context) { throw new RuntimeException(); }
}
