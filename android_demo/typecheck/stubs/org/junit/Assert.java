// Stands for junit:junit:4.13.2: no more of it than the app uses.
package org.junit;

public class Assert {
    public static void assertTrue(String message, boolean condition) { throw new RuntimeException(); }

    public static void assertEquals(Object expected, Object actual) { throw new RuntimeException(); }
}
