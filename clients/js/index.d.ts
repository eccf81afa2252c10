/** Client of a local FlashFlow for Node and Bun. Every promise: docs/client.md. */

export interface ClientOptions {
  /** Stored with the rows if the local key is used, else the key's name is. Default: FLASHFLOW_APP, the program's name. */
  app?: string;
  /** Default user of every call. Default: FLASHFLOW_USER, the login name. */
  userId?: string;
  /** Default: FLASHFLOW_URL, the address in the data folder. */
  url?: string;
  /** Default: FLASHFLOW_KEY, the local key in the data folder. */
  key?: string;
  dataDir?: string;
  /** For tests: nothing is stored or sent. Default: FLASHFLOW_OFF=1. */
  disabled?: boolean;
  onReject?: (rows: Rejected[]) => void;
  /** Rows that wait at most; the oldest are dropped and counted. */
  mostRows?: number;
}

export interface TrackOptions {
  userId?: string;
  sessionId?: string;
  pageUrl?: string;
  referrer?: string;
  userAgent?: string;
  timestamp?: Date;
  activityId?: string;
}

export interface SendOptions {
  userId?: string;
  userIds?: string[];
  notificationType?: string;
  channels?: string[];
  data?: Record<string, unknown>;
  priority?: "low" | "normal" | "high" | "urgent";
  scheduledAt?: Date;
  expiresAt?: Date;
  collapseKey?: string;
  actions?: { label: string; url: string }[];
  template?: string;
  locale?: string;
  /** Milliseconds to wait for the answer; 0 only queues. */
  wait?: number;
}

export interface Delivery {
  channel: string;
  status: string;
  code: string | null;
  reason: string | null;
}

export interface Sent {
  /** The server's status; `queued`: delivered later; `disabled`. */
  status: string;
  notificationId: string | null;
  deliveries: Delivery[];
  answer?: Record<string, unknown>;
}

export interface InboxOptions {
  userId?: string;
  status?: "unread" | "read" | "snoozed" | "archived" | "scheduled" | "failed" | "all";
  limit?: number;
  cursor?: string;
  timeout?: number;
}

export interface Notification {
  id: string;
  user_id: string;
  title: string;
  message: string;
  status: string;
  [field: string]: unknown;
}

export interface Inbox {
  notifications: Notification[];
  unreadCount: number;
  nextCursor: string | null;
}

export interface StreamOptions {
  userId?: string;
  /** Continue after this event. */
  lastEventId?: string;
}

export interface StreamEvent {
  id: string;
  event: "notification" | "notification.updated" | "activity" | "session" | (string & {});
  data: Record<string, any>;
}

export interface Rejected {
  kind: string;
  body: Record<string, any>;
  status: number;
  message: string;
  at: string;
}

export class Client {
  constructor(options?: ClientOptions);
  readonly app: string;
  readonly userId: string;
  readonly disabled: boolean;
  readonly pending: number;
  readonly dropped: number;
  readonly isDurable: boolean;
  track(activityType: string, metadata?: Record<string, unknown>, options?: TrackOptions): string;
  send(title: string | undefined, message: string | undefined, options?: SendOptions): Promise<Sent>;
  inbox(options?: InboxOptions): Promise<Inbox>;
  markRead(notificationId: string, options?: { timeout?: number }): Promise<Notification>;
  stream(options?: StreamOptions): AsyncGenerator<StreamEvent, void>;
  rejected(): Rejected[];
  flush(timeout?: number): Promise<number>;
  close(timeout?: number): Promise<number>;
}

/** Base class of the client's errors. A wrong argument is a TypeError. */
export class ClientError extends Error {}
/** No FlashFlow answered properly in time. */
export class Unreachable extends ClientError {
  retryAfter: number;
}
/** The program at the address did not prove that it knows the key; the key was not sent. */
export class NotProven extends Unreachable {}
/** The server refused the request. */
export class Refused extends ClientError {
  readonly status: number;
  readonly code: string;
  readonly errors: { field: string; message: string }[];
}
