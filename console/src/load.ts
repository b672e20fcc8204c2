// Reading for pages: what was read, why it could not be, and reading it again.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

export interface Loaded<T> {
  data: T | null;
  error: unknown;
  loading: boolean;
  reload: () => Promise<void>;
}

/** useLoad reads when deps change, and every `every` milliseconds while the page is seen. What comes late for older deps is dropped. */
export function useLoad<T>(read: (signal: AbortSignal) => Promise<T>, deps: unknown[], every = 0): Loaded<T> {
  const [state, set] = useState<{ data: T | null; error: unknown; loading: boolean }>({ data: null, error: null, loading: true });
  const running = useRef<AbortController | null>(null);
  const reload = useCallback(async () => {
    running.current?.abort();
    const own = (running.current = new AbortController());
    try {
      const data = await read(own.signal);
      if (!own.signal.aborted) set({ data, error: null, loading: false });
    } catch (error) {
      if (!own.signal.aborted) set((s) => ({ data: s.data, error, loading: false }));
    }
  }, deps);
  useEffect(() => {
    set({ data: null, error: null, loading: true });
    void reload();
    return () => running.current?.abort();
  }, [reload]);
  useEffect(() => {
    if (!every) return;
    const t = setInterval(() => {
      if (!document.hidden) void reload();
    }, every);
    return () => clearInterval(t);
  }, [reload, every]);
  return { ...state, reload };
}
