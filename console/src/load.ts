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

export interface Paged<T> {
  rows: T[];
  more: boolean;
  error: unknown;
  loading: boolean;
  next: () => Promise<void>;
}

/** usePages reads the first page when deps change, and one more for each call of next. */
export function usePages<T>(read: (token: string | undefined, signal: AbortSignal) => Promise<{ rows: T[]; token: string | undefined }>, deps: unknown[]): Paged<T> {
  const empty = { rows: [] as T[], token: undefined as string | undefined, error: null as unknown, loading: true };
  const [state, set] = useState(empty);
  const running = useRef<AbortController | null>(null);
  const load = async (token: string | undefined) => {
    running.current?.abort();
    const own = (running.current = new AbortController());
    set((s) => ({ ...s, loading: true, error: null }));
    try {
      const page = await read(token, own.signal);
      if (!own.signal.aborted) set((s) => ({ rows: token ? [...s.rows, ...page.rows] : page.rows, token: page.token, error: null, loading: false }));
    } catch (error) {
      if (!own.signal.aborted) set((s) => ({ ...s, error, loading: false }));
    }
  };
  useEffect(() => {
    set(empty);
    void load(undefined);
    return () => running.current?.abort();
  }, deps);
  return { rows: state.rows, more: state.token !== undefined, error: state.error, loading: state.loading, next: () => load(state.token) };
}
