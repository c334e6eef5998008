// Stands for androidx.lifecycle:lifecycle-common:2.10.0: no more of it than the app uses.
package androidx.lifecycle;

public abstract class Lifecycle {
}
