// Stands for androidx.test.ext:junit:1.3.0: no more of it than the app uses.
package androidx.test.ext.junit.runners;

import org.junit.runner.Runner;

public final class AndroidJUnit4 extends Runner {
}
