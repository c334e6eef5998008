// Stands for Android's own class of API 29 (the android.jar here is of API 23): no more of it than the app uses.
package android.os;

public final class PowerManager {
    public int getCurrentThermalStatus() { throw new RuntimeException(); }
}
