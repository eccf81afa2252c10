"""Push channels: FCM, APNs, Web Push, and their credentials."""
